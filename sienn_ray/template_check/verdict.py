"""The result of a check of a dataset's rows against a chat template, and its key in storage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from sienn_ray.datasets import intake
from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import ArtifactError, InvalidDatasetError
from sienn_ray.storage import Storage

# Raised when the same rows would get another verdict.
_VERSION = 1
MAX_KINDS = 5
# Of the rows that were tried; with fewer, it may be that they speak of marks.
_RENDERED_SHARE = 0.5


class RowGroup(BaseModel):
    """Rows that have the same said of them.

    Args:
        row: The first one, 0-based.
        line: Where that begins in the file.
        num_rows: How many were found.
        reason: What is said of them.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    line: int
    num_rows: int
    reason: str

    @property
    def words(self) -> str:
        """The words for people: their place, and what is said of them."""
        return f"{self.place}: {self.reason}"

    @property
    def place(self) -> str:
        """The first row, and the number of others."""
        others = {1: "", 2: " and one other"}.get(self.num_rows, f" and {self.num_rows - 1} others")
        return f"row {self.row + 1} (line {self.line}){others}"


class TemplateVerdict(BaseModel):
    """The result of a check.

    Args:
        num_rows: Rows that were tried.
        is_all: Whether these are all rows of the dataset.
        refused: Rows that can't be rendered, by reason, the most frequent ones first.
        num_refused: All such rows.
        marked: Rows of plain text that have special tokens of the base model, if there are any.
    """

    model_config = ConfigDict(frozen=True)

    num_rows: int
    is_all: bool
    refused: tuple[RowGroup, ...] = ()
    num_refused: int = 0
    marked: RowGroup | None = None

    @classmethod
    def kept(cls, storage: Storage, request: TemplateRequest) -> TemplateVerdict | None:
        """Read what was found before, if it was."""
        try:
            return cls.model_validate_json(storage.read_bytes(request.key))
        except (ArtifactError, ValidationError):
            return None

    def refusal(self, request: TemplateRequest) -> str | None:
        """Say why these rows can't be trained on, or None where they can."""
        if self.refused:
            return (
                f"{self.num_refused} of {self._tried} can't be rendered by the chat template of base model "
                f"'{request.base_model}': {'; '.join(each.words for each in self.refused)}. Change these rows, or "
                "choose another base model"
            )
        return None

    def warnings(self, request: TemplateRequest) -> list[str]:
        """Say what is to be known of rows that can be trained on."""
        if not request.is_auto or self.marked is None:
            return []
        if self.reads_tokens(request):
            return [
                f"{self.marked.num_rows} of {self._tried} look rendered already: {self.marked.words}. Such strings are "
                "read as the tokens that they stand for; set special_tokens to 'text' to have them learned as the text "
                "that they are"
            ]
        return [
            f"{self.marked.num_rows} of {self._tried} have special tokens of the base model in their text, which "
            f"are learned as text: {self.marked.words}. Set special_tokens to 'tokens' if they are meant as tokens"
        ]

    def reads_tokens(self, request: TemplateRequest) -> bool:
        """Return whether special tokens in text are read as such, since it looks rendered and nobody has said."""
        is_rendered = self.marked is not None and self.marked.num_rows >= _RENDERED_SHARE * self.num_rows
        return request.is_auto and is_rendered

    def check(self, request: TemplateRequest) -> None:
        """Refuse rows that can't be trained on.

        Raises:
            InvalidDatasetError: These can't.
        """
        if words := self.refusal(request):
            raise InvalidDatasetError(words)

    @property
    def _tried(self) -> str:
        return f"{self.num_rows} rows" if self.is_all else f"the {self.num_rows} rows that were tried"


@dataclass(frozen=True)
class TemplateRequest:
    """A request for the check of a dataset.

    Args:
        dataset_id: Of which dataset.
        num_rows: Its rows.
        row_kind: What its rows are.
        base_model: Hub id.
        revision: Commit of the base model; None is that of a package.
        options: How rows become text.
        is_auto: Whether nobody has said how special tokens in plain text are meant.
    """

    dataset_id: str
    num_rows: int
    row_kind: RowKind
    base_model: str
    revision: str | None = None
    options: RenderOptions = field(default_factory=RenderOptions)
    is_auto: bool = True

    @property
    def key(self) -> str:
        """Storage key of the result; it goes when the dataset goes."""
        words = [str(_VERSION), self.base_model, self.revision or "", self.options.variables.json]
        name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
        return f"{intake.folder_key(self.dataset_id)}/templates/{name}.json"
