"""The statistics of a dataset, and their keys in storage. Nothing here needs Ray Data or a tokenizer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.histogram import Distribution
from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import ArtifactError
from sienn_ray.storage import Storage

# Raised when the same dataset would get other numbers, so that kept ones are computed anew.
_VERSION = 2


class DatasetStatistics(BaseModel):
    """Numbers over all rows of a dataset; tokens are counted before rows are cut to `max_length`.

    Tokens of a preference row are those of its prompt and of the longer of its two answers.

    Args:
        base_model: Whose tokenizer and chat template the tokens are counted with.
        max_length: Tokens of a row in training.
        num_rows: Rows.
        characters: Characters of a row, without what the chat template adds.
        tokens: All tokens of a row.
        prompt_tokens: Those that the model reads.
        completion_tokens: Those that it has to produce.
        num_rows_over_max_length: Rows with more tokens than `max_length`.
        num_tokens_over_max_length: Tokens that these have beyond it; None of numbers of before this was counted.
        num_dropped_rows: Rows that training leaves out, since their prompts alone fill `max_length`.
        num_duplicate_rows: Rows that repeat an earlier one exactly.
        duplicate_lines: Lines of the first of these.
        num_empty: Rows with nothing in a column, by the column's place in the dataset's record; None for datasets that
            were stored before this was noted.
    """

    model_config = ConfigDict(frozen=True)

    base_model: str
    max_length: int
    num_rows: int
    characters: Distribution
    tokens: Distribution
    prompt_tokens: Distribution
    completion_tokens: Distribution
    num_rows_over_max_length: int
    num_tokens_over_max_length: int | None = None
    num_dropped_rows: int
    num_duplicate_rows: int
    duplicate_lines: list[int]
    num_empty: list[int] | None

    @classmethod
    def kept(cls, storage: Storage, request: StatisticsRequest) -> DatasetStatistics | None:
        """Read what was computed before, if it was."""
        try:
            return cls.model_validate_json(storage.read_bytes(request.key))
        except (ArtifactError, ValidationError):  # not there, or of a version that wrote other fields
            return None


@dataclass(frozen=True)
class StatisticsRequest:
    """A request for the statistics of a dataset.

    Args:
        dataset_id: Of which dataset.
        base_model: Hub id of the base model that counts the tokens.
        max_length: Tokens of a row in training.
        row_kind: What the rows are.
        num_columns: Columns that the dataset's record names.
        revision: Commit of the base model that was asked for; None is what is here, or the main branch.
        options: How rows become text.
    """

    dataset_id: str
    base_model: str
    max_length: int
    row_kind: RowKind
    num_columns: int
    revision: str | None = None
    options: RenderOptions = field(default_factory=RenderOptions)

    @property
    def key(self) -> str:
        """Storage key of the result; it goes when the dataset goes."""
        words = f"{_VERSION}\n{self.base_model}\n{self.max_length}"
        if self.revision is not None:
            words += f"\n{self.revision}"
        if self.options != RenderOptions():
            words += f"\n{self.options.special_tokens}\n{self.options.variables.json}"
        name = hashlib.sha256(words.encode()).hexdigest()[:32]
        return f"{dataset_keys.folder_key(self.dataset_id)}/statistics/{name}.json"
