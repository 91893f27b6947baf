"""The result of a check of a dataset's rows against a chat template, and its key in storage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.render_options import RenderOptions, SpecialTokens
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import ArtifactError, InvalidDatasetError
from sienn_ray.storage import Storage

# Raised when the same rows would get another verdict.
_VERSION = 2
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
        num_rendered: Those of them in which such tokens are the marks of a chat template.
    """

    model_config = ConfigDict(frozen=True)

    num_rows: int
    is_all: bool
    refused: tuple[RowGroup, ...] = ()
    num_refused: int = 0
    marked: RowGroup | None = None
    num_rendered: int = 0

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
                f"{self.num_rendered} of {self._tried} look rendered already: {self.marked.words}. Such strings are "
                "read as the tokens that they stand for; set special_tokens to 'text' to have them learned as the text "
                "that they are"
            ]
        return [
            f"{self.marked.num_rows} of {self._tried} have special tokens of the base model in their text, which "
            f"are learned as text: {self.marked.words}. Set special_tokens to 'tokens' if they are meant as tokens"
        ]

    def reads_tokens(self, request: TemplateRequest) -> bool:
        """Return whether special tokens in text are read as such, since it looks rendered and nobody has said."""
        return request.is_auto and 0 < self.num_rendered >= _RENDERED_SHARE * self.num_rows

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


def settled_special_tokens(
    found: Sequence[tuple[TemplateRequest, TemplateVerdict | None]],
) -> SpecialTokens | None:
    """Settle how special tokens in plain text are read by all datasets of a job, where nobody has said.

    Args:
        found: The verdicts on them; rows without special tokens are read either way.

    Returns:
        None where that was said, or can't be told.

    Raises:
        InvalidDatasetError: One dataset looks rendered, and another one has such tokens in its text.
    """
    if not any(request.is_auto for request, _ in found):
        return None
    marked = [(request, each) for request, each in found if each is not None and each.marked is not None]
    tokens = [request.dataset_id for request, each in marked if each.reads_tokens(request)]
    text = [request.dataset_id for request, each in marked if not each.reads_tokens(request)]
    if tokens and text:
        raise InvalidDatasetError(
            f"dataset {tokens[0]} looks rendered already, so special tokens in its text would be read as tokens, and "
            f"dataset {text[0]} has some in its text that would be learned as text; set special_tokens to 'tokens' or "
            "'text', which then holds for all datasets of the job"
        )
    if any(verdict is None or verdict.num_rows == 0 for _, verdict in found):
        return None
    return "tokens" if tokens else "text"


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
        return f"{dataset_keys.folder_key(self.dataset_id)}/templates/{name}.json"
