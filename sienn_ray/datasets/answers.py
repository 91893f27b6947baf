"""Answers of a rendered conversation: what the model has to produce, behind the text that asks for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sienn_ray.errors import InvalidDatasetError

# What a prompt may end with: the beginning of a block of reasoning.
_OPENED = re.compile(r"<(\w+)>\s*\Z")


@dataclass(frozen=True)
class Answer:
    """An answer as a chat template renders it.

    Args:
        prompt: The text that asks for it.
        completion: How the model has to go on from there.
        num_given_chars: Characters of the completion that the model is given, and doesn't learn.
    """

    prompt: str
    completion: str
    num_given_chars: int = 0


def whole_answers(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Join the beginning of an answer (`prefix`) with its rest; `prefix` is the text that is given then."""
    whole: list[Mapping[str, Any]] = []
    for message in messages:
        begun = whole[-1] if whole and whole[-1].get("prefix") is True else None
        if begun is None or message["role"] != "assistant":
            whole.append(message)
            continue
        content = begun["content"] + message["content"]
        goes_on = message.get("prefix") is True
        given = True if goes_on else begun["content"]
        rest = {key: value for key, value in message.items() if key not in {"role", "content", "prefix"}}
        whole[-1] = {**begun, **rest, "content": content, "prefix": given}
    return whole


def completion_behind(prompt: str, whole: str, answer: str, find_begin: Callable[[], int | None]) -> str:
    """Return how the model has to go on from a prompt, to the end of its turn.

    Where the prompt opens a block of reasoning that the template then leaves out, the completion closes it, behind the
    reasoning that the answer itself may have.

    Args:
        prompt: The rendered text that asks for an answer.
        whole: The rendered conversation with the answer.
        answer: The answer as the template was given it.
        find_begin: Finds where it begins in the rendered conversation; None where that can't be told.

    Raises:
        InvalidDatasetError: The answer doesn't go on from the prompt.
    """
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    opened = _OPENED.search(prompt)
    if opened is not None and whole.startswith(prompt[: opened.start()]):
        return _behind_opened(opened[1], whole[opened.start() :], answer)
    # Whatever else the prompt has that an answered one hasn't, stands before the answer.
    begin = find_begin()
    if begin is not None and prompt.startswith(whole[:begin]):
        return whole[begin:]
    raise InvalidDatasetError(
        "the base model's chat template renders a prompt differently once it is answered, so the answer can't be told "
        "from the prompt; use another base model"
    )


def _behind_opened(name: str, rest: str, answer: str) -> str:
    start, end = f"<{name}>", f"</{name}>"
    if rest.startswith(start):  # with other blanks behind it
        return rest[len(start) :]
    reasoning, _, _ = answer.rpartition(end)
    shown = rest.lstrip("\n") if reasoning else rest  # what stood behind the reasoning
    return f"{reasoning.strip().removeprefix(start).strip()}\n{end}\n\n{shown}"


def completion_behind_changed(prompt: str, before: str, whole: str, first: str) -> str | None:
    """Return how the model has to go on from a prompt whose earlier turns change once it has done so.

    There are templates that drop reasoning before calls of tools when the last answer comes.

    Args:
        prompt: The rendered text that asks for an answer.
        before: The same conversation, without asking.
        whole: The rendered conversation with the answer.
        first: What the answer begins with.
    """
    asking = prompt.removeprefix(before) if prompt.startswith(before) else ""
    begin = whole.rfind(asking, 0, whole.rfind(first)) if asking and first in whole else -1
    return None if begin < 0 else whole[begin + len(asking) :]
