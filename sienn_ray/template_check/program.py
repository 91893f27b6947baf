"""The process that renders rows of a dataset, and may be killed; run as a program, by its path.

It reads a `Work` as JSON from its standard input, and writes an `Answer` as JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from sienn_ray.datasets.end_marks import text_ends, without_end
from sienn_ray.datasets.literal_text import literal, plain
from sienn_ray.datasets.measure import sides_of
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.shapes.rendered_text import chat_mark
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.errors import InvalidBaseModelError, InvalidInputError
from sienn_ray.storage import Storage
from sienn_ray.template_check.base_template import BaseTemplate
from sienn_ray.template_check.row_sample import sampled_rows
from sienn_ray.template_check.template_tokenizer import TemplateTokenizer
from sienn_ray.template_check.verdict import MAX_KINDS, RowGroup, TemplateVerdict

# What has been tried by then says enough.
MAX_RUN_CPU_S = 8.0
# The process is killed by then: one operation of C code isn't interrupted.
MAX_CPU_S = 30
MAX_MEMORY_BYTES = 1024**3
TOO_MUCH = 3
_MAX_REASON_CHARS = 500


class Work(BaseModel):
    """Order to render rows."""

    model_config = ConfigDict(frozen=True)

    base_model: str
    chat_template: str | None
    named_tokens: dict[str, str]
    special_tokens: tuple[str, ...]
    row_kind: RowKind
    chat_template_kwargs: dict[str, Any]
    storage_url: str
    rows_key: str
    num_rows: int

    def answer(self) -> Answer:
        """Render the rows."""
        try:
            return Answer(verdict=self._verdict())
        except InvalidBaseModelError as error:
            return Answer(base_model_fault=error.message)
        except InvalidInputError as error:
            return Answer(variables_fault=error.message)

    def _verdict(self) -> TemplateVerdict:
        template = BaseTemplate(self.chat_template, self.named_tokens, self.special_tokens)
        trial = _Trial(TemplateTokenizer(template, self.base_model), self)
        end_s = time.process_time() + MAX_RUN_CPU_S
        for row in sampled_rows(Storage(self.storage_url), self.rows_key, lambda: time.process_time() > end_s):
            trial.add(row)
        return trial.verdict()


class Answer(BaseModel):
    """Result of a `Work`.

    Args:
        verdict: On the rows.
        base_model_fault: Why the template can't be rendered at all.
        variables_fault: Why it can't be given these variables.
    """

    model_config = ConfigDict(frozen=True)

    verdict: TemplateVerdict | None = None
    base_model_fault: str | None = None
    variables_fault: str | None = None

    def checked(self) -> TemplateVerdict | None:
        """Return the verdict.

        Raises:
            InvalidInputError: There is none, for a reason of the user's.
        """
        if self.base_model_fault is not None:
            raise InvalidBaseModelError(self.base_model_fault)
        if self.variables_fault is not None:
            raise InvalidInputError(self.variables_fault)
        return self.verdict


class _Trial:
    """Renders rows one by one, and adds up what becomes of them."""

    def __init__(self, tokenizer: TemplateTokenizer, work: Work) -> None:
        self._tokenizer = tokenizer
        self._work = work
        options = RenderOptions.of(work.chat_template_kwargs, "text")
        self._format = PromptFormat.for_rows(work.row_kind, tokenizer, options)
        self._num_rows = self._num_rendered = 0
        self._refused, self._marked = _Groups(), _Groups()

    def add(self, row: Mapping[str, Any]) -> None:
        self._num_rows += 1
        if row["messages"] is None:
            self._look_for_marks(row)
            return
        try:
            sides_of(self._tokenizer, self._format, StoredRow.of(row))
        except InvalidBaseModelError:
            raise
        except InvalidInputError as error:
            self._refused.add(row, error.message)

    def verdict(self) -> TemplateVerdict:
        marked = self._marked.largest(1)
        return TemplateVerdict(
            num_rows=self._num_rows,
            is_all=self._num_rows >= self._work.num_rows,
            refused=self._refused.largest(MAX_KINDS),
            num_refused=self._refused.num_rows,
            num_rendered=self._num_rendered,
            marked=marked[0].model_copy(update={"num_rows": self._marked.num_rows}) if marked else None,
        )

    def _look_for_marks(self, row: Mapping[str, Any]) -> None:
        text = without_end(row["text"] or "", text_ends(self._tokenizer))
        if (marked := literal(self._tokenizer, text)) != text:
            tokens = [token for token in self._tokenizer.all_special_tokens if token in text]
            if tokens and plain(marked) == text:
                self._marked.add(row, f"'{min(tokens, key=text.find)}' is a special token of the base model")
                self._num_rendered += self._is_rendered(text, tokens)

    def _is_rendered(self, text: str, tokens: Sequence[str]) -> bool:
        """Whether a text with special tokens has them for a template's marks; `<s>` is HTML's, `<unk>` a corpus's."""
        mark = chat_mark(text)
        # That of Llama 2 is text, behind the token that begins the sequence.
        return mark is not None and (mark in tokens or text.partition(mark)[0].strip() in tokens)


class _Groups:
    """Rows by what is said of them."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, int]] = {}
        self._counts: Counter[str] = Counter()

    @property
    def num_rows(self) -> int:
        return self._counts.total()

    def add(self, row: Mapping[str, Any], reason: str) -> None:
        said = reason[:_MAX_REASON_CHARS]
        self._first.setdefault(said, (row["row"], row["line"]))
        self._counts[said] += 1

    def largest(self, num_groups: int) -> tuple[RowGroup, ...]:
        chosen = self._counts.most_common(num_groups)
        return tuple(
            RowGroup(row=self._first[reason][0], line=self._first[reason][1], num_rows=count, reason=reason)
            for reason, count in chosen
        )


def limit() -> None:
    """Bound what this process may take from here on."""
    try:
        import resource
    except ImportError:  # there is none on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return
    limit_bytes = pages * resource.getpagesize() + MAX_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def main() -> int:
    """Render the rows that are asked for within the limits."""
    work = Work.model_validate_json(sys.stdin.read())
    limit()
    try:
        answer = work.answer()
    except (MemoryError, OverflowError):
        return TOO_MUCH
    sys.stdout.write(answer.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
