from __future__ import annotations

import pytest

from sienn_ray.datasets.schema import DatasetFormat
from sienn_ray.datasets.shapes.detection import detect_format
from sienn_ray.errors import InvalidDatasetError


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["instruction", "response"], DatasetFormat.INSTRUCTION_RESPONSE),
        (["response", "instruction"], DatasetFormat.INSTRUCTION_RESPONSE),
        (["instruction", "output"], DatasetFormat.ALPACA),
        (["instruction", "input", "output"], DatasetFormat.ALPACA),
        (["instruction", "input", "response"], DatasetFormat.INSTRUCTION_INPUT_RESPONSE),
        (["prompt", "completion"], DatasetFormat.PROMPT_COMPLETION),
        (["question", "answer"], DatasetFormat.QUESTION_ANSWER),
        (["prompt", "chosen", "rejected"], DatasetFormat.PREFERENCE),
        (["Rejected", "score_chosen", "chosen", "PROMPT "], DatasetFormat.PREFERENCE),
        (["messages"], DatasetFormat.CHAT),
        (["text"], DatasetFormat.TEXT),
        ([" Instruction", "RESPONSE\t"], DatasetFormat.INSTRUCTION_RESPONSE),
        (["", "id", "prompt", "messages", "prompt_id"], DatasetFormat.CHAT),
        (["text", "instruction"], DatasetFormat.TEXT),
        ([*(f"extra {index}" for index in range(3_000)), "text"], DatasetFormat.TEXT),
    ],
)
def test_format_is_told_from_columns(columns: list[str], expected: DatasetFormat) -> None:
    assert detect_format(columns) is expected


@pytest.mark.parametrize(
    "columns",
    [
        [],
        [""],
        ["instruction"],
        ["instruction", "input"],
        ["prompts", "completion"],
        ["chosen"],
        ["completion"],
        ["article", "summary"],
    ],
)
def test_unknown_columns_are_listed_with_the_accepted_sets(columns: list[str]) -> None:
    with pytest.raises(
        InvalidDatasetError, match=r"^unknown columns: found .*instruction,response; .*; text; .*columns=\{"
    ) as error:
        detect_format(columns)
    assert all(repr(column) in error.value.message for column in columns)


@pytest.mark.parametrize(
    ("columns", "sets"),
    [
        (["instruction", "response", "output"], "instruction,response and instruction,output"),
        (["instruction", "input", "response", "output"], "instruction,response and instruction,output"),
        (["question", "answer", "messages"], "question,answer and messages"),
        (["prompt", "completion", "chosen", "rejected"], "prompt,completion,rejected and prompt,chosen,rejected"),
        (["problem", "solution", "answer"], "problem,answer and problem,solution"),
        (["prompt", "query", "response"], "prompt,response and query,response"),
    ],
)
def test_ambiguous_columns_are_refused(columns: list[str], sets: str) -> None:
    with pytest.raises(InvalidDatasetError, match=f"^ambiguous columns.*which fits {sets}; keep the columns of one"):
        detect_format(columns)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["prompt", "completion", "text"], DatasetFormat.PROMPT_COMPLETION),
        (["prompt", "chosen", "rejected", "text"], DatasetFormat.PREFERENCE),
        (["instruction", "input", "output", "text"], DatasetFormat.ALPACA),
        (["prompt", "chosen", "rejected", "messages", "conversations"], DatasetFormat.PREFERENCE),
    ],
)
def test_a_rendered_text_beside_its_parts_gives_way_to_them(columns: list[str], expected: DatasetFormat) -> None:
    assert detect_format(columns) is expected


def test_message_stays_short_with_many_long_columns() -> None:
    with pytest.raises(InvalidDatasetError, match=r"and 4,980 more") as error:
        detect_format([f"{index:0>1000}" for index in range(5_000)])
    assert len(error.value.message) < 2_000
