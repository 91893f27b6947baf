"""The examples that training makes of a row, and what becomes of one with more than `max_length` tokens."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.row_splits import split_conversation, split_text
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.datasets.tokenization import TokenizedRow, tokenize_answer, tokenize_pair, tokenize_row

_NO_LIMIT = sys.maxsize


@dataclass(frozen=True)
class RowTokens:
    """Tokens of one row.

    Args:
        examples: All examples of the row, those that are left out as well; of a preference row the chosen answer's and
            the rejected one's.
        num_over: Tokens beyond `max_length` that are left out; of a pair, those of its longer side.
        is_split: Whether the row was too long and is several examples for that.
        is_left_out: Whether nothing of the row is trained on.
        is_pair: Whether the two examples are compared.
    """

    examples: tuple[TokenizedRow, ...]
    num_over: int = 0
    is_split: bool = False
    is_left_out: bool = False
    is_pair: bool = False

    @property
    def is_long(self) -> bool:
        """Return whether the row has more than `max_length` tokens."""
        return self.is_split or self.num_over > 0

    def is_kept(self, example: TokenizedRow) -> bool:
        """Return whether one of the examples is trained on."""
        return not self.is_left_out and (self.is_pair or example.has_answer)

    @property
    def kept(self) -> list[TokenizedRow]:
        """Examples that are trained on."""
        return [example for example in self.examples if self.is_kept(example)]


@dataclass(frozen=True)
class RowTokenizer:
    """Makes tokens of stored rows, in training and wherever it is shown what training reads.

    Args:
        tokenizer: The base model's.
        prompt_format: How rows become text.
        max_length: Most tokens of an example.
        long_rows: What becomes of longer ones.
    """

    tokenizer: Any
    prompt_format: PromptFormat
    max_length: int
    long_rows: LongRows = "cut"

    def tokens(self, row: StoredRow) -> RowTokens:
        """Tokenize one row.

        Raises:
            InvalidDatasetError: The chat template can't render it.
        """
        if row.chat_template_kwargs:
            own = replace(self, prompt_format=self.prompt_format.for_row(row.chat_template_kwargs))
            return own.tokens(replace(row, chat_template_kwargs=None))
        if row.messages is not None and row.rejected is not None:
            return self._pair(row.messages, row.rejected, row.tools)
        if row.messages is not None and row.label is not None:
            return self._labelled(row.messages, row.tools)
        examples = self._examples(row)
        if any(example.num_cut for example in examples) and self.long_rows == "split":
            pieces = self._split(row)
            if pieces is not None:
                examples = [example for piece in pieces for example in piece]
            num_over = sum(max((example.num_cut for example in piece), default=0) for piece in pieces or [examples])
            is_split = pieces is not None and sum(example.has_answer for example in examples) > 1
        else:
            num_over, is_split = max((example.num_cut for example in examples), default=0), False
        has_none = not any(example.has_answer for example in examples)
        return RowTokens(tuple(examples), num_over, is_split, is_left_out=has_none or self._drops(num_over))

    def _labelled(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> RowTokens:
        """The answer that has the label; one that is cut is learned as far as it goes."""
        answer = tokenize_answer(
            self.tokenizer, self.prompt_format, messages=messages, tools=tools, max_length=self.max_length
        )
        is_left_out = not answer.has_answer or self._drops(answer.num_cut)
        return RowTokens((answer,), answer.num_cut, is_left_out=is_left_out)

    def _pair(
        self, messages: list[dict[str, Any]], rejected: dict[str, Any], tools: list[dict[str, Any]] | None
    ) -> RowTokens:
        pair = tokenize_pair(
            self.tokenizer,
            self.prompt_format,
            messages=messages,
            rejected=rejected,
            tools=tools,
            max_length=self.max_length,
        )
        sides = (pair.chosen, pair.rejected)
        num_over = max(side.num_cut for side in sides)
        is_left_out = not all(side.has_answer for side in sides) or self._drops(num_over)
        return RowTokens(sides, num_over, is_left_out=is_left_out, is_pair=True)

    def _drops(self, num_over: int) -> bool:
        return self.long_rows == "drop" and num_over > 0

    def _examples(self, row: StoredRow, max_length: int | None = None) -> list[TokenizedRow]:
        return tokenize_row(
            self.tokenizer,
            self.prompt_format,
            messages=row.messages,
            text=row.text,
            tools=row.tools,
            max_length=self.max_length if max_length is None else max_length,
        )

    def _split(self, row: StoredRow) -> list[list[TokenizedRow]] | None:
        """The examples of each piece of a row that is too long; None where it has no place to be split at."""
        if row.messages is None:
            (whole,) = self._examples(row, _NO_LIMIT)
            return [[piece] for piece in split_text(self.tokenizer, whole, self.prompt_format.kind, self.max_length)]
        return split_conversation(row.messages, lambda some: self._examples(replace(row, messages=list(some))))
