"""Rows as the model reads them, and the question for some of them. Nothing here needs a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.schema import RowKind

Side = Literal["chosen", "rejected"]
# What becomes of a row: it is read as it is, loses its end, becomes several examples, or isn't trained on.
Fate = Literal["whole", "cut", "split", "left_out"]

MAX_ROWS = 20


@dataclass(frozen=True)
class RenderingRequest:
    """A request for some rows of a dataset as the model reads them.

    Args:
        dataset_id: Of which dataset.
        base_model: Hub id of the base model that reads.
        row_kind: What the rows are.
        max_length: Tokens of an example.
        long_rows: What becomes of longer ones.
        offset: Number of the first row.
        limit: Rows at the most, `MAX_ROWS` of them.
        revision: Commit of the base model; None is what is here, or the main branch.
        options: How rows become text.
    """

    dataset_id: str
    base_model: str
    row_kind: RowKind
    max_length: int
    long_rows: LongRows
    offset: int
    limit: int
    revision: str | None = None
    options: RenderOptions = field(default_factory=RenderOptions)


@dataclass(frozen=True)
class LearnedSpan:
    """A stretch of an example's text that the model has to produce.

    Args:
        start: Its first character.
        end: The character behind its last one.
        num_tokens: Tokens of it that the loss counts.
    """

    start: int
    end: int
    num_tokens: int


@dataclass(frozen=True)
class SpecialToken:
    """The string of a special token in an example's text.

    Args:
        start: Its first character.
        end: The character behind its last one.
        token: The string.
        is_control: Whether the model reads the special token; else it reads the string as ordinary text.
    """

    start: int
    end: int
    token: str
    is_control: bool


@dataclass(frozen=True)
class Cut:
    """The end of what the model reads of an example.

    Args:
        position: The first character that it doesn't read.
        num_tokens: Tokens that it doesn't read.
    """

    position: int
    num_tokens: int


@dataclass(frozen=True)
class RenderedExample:
    """One token sequence of training, as text.

    Args:
        side: The answer of a preference row that it has.
        text: The text, with what is cut off; its first characters, where there are more than are shown.
        num_chars: Characters of the whole text.
        num_tokens: Tokens that the model reads.
        num_learned_tokens: Those of them that the loss counts.
        is_left_out: Whether it isn't trained on.
        spans: What the model has to produce.
        special_tokens: Special tokens, and strings that look like them.
        cut: Where `max_length` cuts, if it does.
    """

    side: Side | None
    text: str
    num_chars: int
    num_tokens: int
    num_learned_tokens: int
    is_left_out: bool
    spans: tuple[LearnedSpan, ...]
    special_tokens: tuple[SpecialToken, ...]
    cut: Cut | None

    @property
    def is_truncated(self) -> bool:
        """Return whether there is more text than is shown."""
        return len(self.text) < self.num_chars


@dataclass(frozen=True)
class RenderedRow:
    """One row as the model reads it.

    Args:
        row: 0-based number.
        line: Where it begins in the file, as `schema.PARQUET_SCHEMA` has it.
        fate: What becomes of it; None where the chat template refuses it.
        num_tokens_left_out: Tokens of it beyond `max_length`, of which nothing is read.
        num_examples: Examples that it makes, of which the first are shown.
        examples: Those that are shown.
        fault: Why the chat template refuses it, if it does.
    """

    row: int
    line: int
    fate: Fate | None
    num_tokens_left_out: int = 0
    num_examples: int = 0
    examples: tuple[RenderedExample, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class RenderedPage:
    """Some rows as the model reads them, and how many the dataset has."""

    rows: tuple[RenderedRow, ...]
    num_rows: int
