"""Shapes of datasets: sets of columns, and the format that each of them makes.

A shape's columns are told apart by their names alone. To read one more layout, add it here; the detection, the error
that lists what is accepted and the documentation follow from this table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sienn_ray.datasets.schema import DatasetFormat
from sienn_ray.datasets.shapes.names import BESIDE, COMPLETIONS, IGNORE, MESSAGES, PROMPTS, Part

# What a pair of prompt and completion is called, by the name of its prompt.
_FORMAT_OF_PROMPT = {
    "instruction": DatasetFormat.INSTRUCTION_RESPONSE,
    "query": DatasetFormat.INSTRUCTION_RESPONSE,
    "prompt": DatasetFormat.PROMPT_COMPLETION,
    "input": DatasetFormat.PROMPT_COMPLETION,
    "inputs": DatasetFormat.PROMPT_COMPLETION,
    "user": DatasetFormat.PROMPT_COMPLETION,
    "human": DatasetFormat.PROMPT_COMPLETION,
    "question": DatasetFormat.QUESTION_ANSWER,
    "problem": DatasetFormat.QUESTION_ANSWER,
}
# Pairs of names that count only where no pair of plainer names is there.
_WEAK_PAIRS = (
    *(("input", completion) for completion in (*COMPLETIONS, "target")),
    ("inputs", "targets"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("human", "gpt"),
    ("question", "answers"),
)
_DOCUMENTED_PAIRS = (
    ("instruction", "response"),
    ("instruction", "output"),
    ("prompt", "completion"),
    ("question", "answer"),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A set of columns that a dataset may have.

    Args:
        format: Its format in records and answers.
        parts: The part of a row that each column is. A column may be there without being read.
        rank: Of several shapes that fit, those of the lowest rank count.
        columns: The columns that it needs.
    """

    format: DatasetFormat
    parts: dict[str, Part]
    rank: int
    columns: frozenset[str] = field(default=frozenset())

    @property
    def makes_answers(self) -> bool:
        """Return whether its rows are conversations with one answer, which may be labelled."""
        return self.format not in {DatasetFormat.TEXT, DatasetFormat.PREFERENCE}

    def __str__(self) -> str:
        """The columns as users are told of them."""
        return ",".join(self.parts)


def _shape(
    dataset_format: DatasetFormat, parts: dict[str, Part], rank: int, *, unread: frozenset[str] = frozenset()
) -> Shape:
    return Shape(dataset_format, parts, rank, frozenset(parts) | unread)


def _pairs() -> Iterator[tuple[str, str, DatasetFormat, int]]:
    """Names of prompt and completion, their format and rank."""
    for prompt in PROMPTS:
        for completion in COMPLETIONS:
            rank = 0 if (prompt, completion) in _DOCUMENTED_PAIRS else 1
            yield prompt, completion, _pair_format(prompt, completion), rank
    for prompt, completion in _WEAK_PAIRS:
        yield prompt, completion, _pair_format(prompt, completion), 2


def _pair_format(prompt: str, completion: str) -> DatasetFormat:
    is_alpaca = (prompt, completion) == ("instruction", "output")
    return DatasetFormat.ALPACA if is_alpaca else _FORMAT_OF_PROMPT[prompt]


def _shapes() -> Iterator[Shape]:
    yield from _conversations()
    yield from _preferences()
    yield _shape(DatasetFormat.TEXT, {"text": Part.TEXT}, 4)


def _conversations() -> Iterator[Shape]:
    for prompt, completion, dataset_format, rank in _pairs():
        parts = {prompt: Part.PROMPT, completion: Part.COMPLETION}
        yield _shape(dataset_format, parts, rank)
        for rejected in ("rejected", "rejected_response"):
            yield _shape(DatasetFormat.PREFERENCE, {**parts, rejected: Part.REJECTED}, rank)
    for name in MESSAGES:
        rank = 0 if name == "messages" else 1
        yield _shape(DatasetFormat.CHAT, {name: Part.MESSAGES}, rank)
        yield _shape(DatasetFormat.PREFERENCE, {name: Part.MESSAGES, "rejected_response": Part.REJECTED}, rank)


def _preferences() -> Iterator[Shape]:
    answers = {"chosen": Part.CHOSEN, "rejected": Part.REJECTED}
    for prompt in (*PROMPTS, "input"):
        rank = {"prompt": 0, "input": 2}.get(prompt, 1)
        yield _shape(DatasetFormat.PREFERENCE, {prompt: Part.PROMPT, **answers}, rank)
        for name in MESSAGES:  # UltraFeedback has the better conversation once more
            yield _shape(DatasetFormat.PREFERENCE, {prompt: Part.PROMPT, **answers}, rank, unread=frozenset({name}))
    for name in MESSAGES:
        yield _shape(DatasetFormat.PREFERENCE, {name: Part.MESSAGES, **answers}, 1 if name != "messages" else 0)
    yield _shape(DatasetFormat.PREFERENCE, answers, 3)  # whole conversations, which begin with the prompt
    openai = {"input": Part.PROMPT, "preferred_output": Part.CHOSEN, "non_preferred_output": Part.REJECTED}
    yield _shape(DatasetFormat.PREFERENCE, openai, 0)


SHAPES: tuple[Shape, ...] = tuple(_shapes())

# Names of both sides of an exchange, plainer ones first.
PAIR_NAMES: tuple[tuple[str, str], ...] = tuple(
    (prompt, completion) for prompt, completion, _, _ in sorted(_pairs(), key=lambda pair: pair[3])
)
# Columns that are documented for each format. Further ones may stand beside them.
_DOCUMENTED: Mapping[DatasetFormat, tuple[str, ...]] = {
    DatasetFormat.INSTRUCTION_RESPONSE: ("instruction", "response"),
    DatasetFormat.INSTRUCTION_INPUT_RESPONSE: ("instruction", "input", "response"),
    DatasetFormat.ALPACA: ("instruction", "input", "output"),
    DatasetFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DatasetFormat.QUESTION_ANSWER: ("question", "answer"),
    DatasetFormat.PREFERENCE: ("prompt", "chosen", "rejected"),
    DatasetFormat.UNPAIRED_PREFERENCE: ("prompt", "completion", "label"),
    DatasetFormat.CHAT: ("messages",),
    DatasetFormat.TEXT: ("text",),
}
ACCEPTED = (
    f"{'; '.join(map(','.join, _DOCUMENTED.values()))}; "
    f"any of {', '.join(PROMPTS)} with any of {', '.join(COMPLETIONS)}; "
    f"{' or '.join(MESSAGES[1:])} as messages; chosen,rejected that are whole conversations"
)


def documented_columns(dataset_format: DatasetFormat) -> tuple[str, ...]:
    """Return the columns that a format is documented with."""
    return _DOCUMENTED[dataset_format]


def known_columns() -> frozenset[str]:
    """Return all names that a column may be mapped to: those that are read, and the one that leaves it out."""
    beside = {name for names in BESIDE.values() for name in names}
    return frozenset({IGNORE, *beside}.union(*(shape.parts for shape in SHAPES)))
