"""Chat templates of current models, read from TRL's package where it is installed: every conversation trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.literal_text import plain
from sienn_ray.datasets.tokenization import tokenize_row
from tests.support.current_templates import TEMPLATES, format_of

LONG = 100_000
QUESTIONS = ("What is a probe?", "And what does it see?", "How far?")
ANSWERS = ("An instrument that looks.", "Whatever is there.", "As far as light goes.\n\nNo farther.")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


def conversation(num_turns: int, system: str | None = None) -> list[dict[str, str]]:
    turns = [
        {"role": role, "content": content}
        for question, answer in list(zip(QUESTIONS, ANSWERS, strict=True))[:num_turns]
        for role, content in (("user", question), ("assistant", answer))
    ]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def test_there_are_templates() -> None:
    assert len(TEMPLATES) >= 40


@pytest.mark.parametrize("num_turns", [1, 2, 3])
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_answer_is_learned_once_as_the_model_is_asked(tokenizer: Any, path: Path, num_turns: int) -> None:
    prompt_format = format_of(path)
    messages = conversation(num_turns)
    found: list[str] = []
    for pieces in prompt_format.examples(tokenizer, messages):
        before = ""
        for piece in pieces:
            if piece.is_completion:
                asked = messages[: 2 * len(found) + 1]
                assert before == prompt_format.prompt(tokenizer, asked)
                found.append(plain(piece.text))
            before += piece.text
    assert len(found) == num_turns
    for text, answer in zip(found, ANSWERS, strict=False):
        assert text.count(answer) == 1
        # Whatever else is to be produced are the template's marks, and an empty block of reasoning.
        assert not any(other in text for other in (*QUESTIONS, *ANSWERS) if other != answer)
        assert answer in text.rpartition("</think>")[2]
    assert found[-1].endswith(tokenizer.eos_token)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_labels_are_the_answers(tokenizer: Any, path: Path) -> None:
    rows = tokenize_row(tokenizer, format_of(path), messages=conversation(3), text=None, max_length=LONG)
    learned = "".join(tokenizer.decode([label for label in row.labels if label >= 0]) for row in rows)
    assert [learned.count(answer) for answer in ANSWERS] == [1, 1, 1]
    assert not any(question in learned for question in QUESTIONS)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_system_message_is_read_but_not_learned(tokenizer: Any, path: Path) -> None:
    rows = tokenize_row(tokenizer, format_of(path), messages=conversation(2, "Be brief."), text=None, max_length=LONG)
    assert all("Be brief." in tokenizer.decode(row.input_ids) for row in rows)
    assert not any("Be brief." in tokenizer.decode([label for label in row.labels if label >= 0]) for row in rows)
