"""The part of a rendered conversation that the model has to produce, behind the text that asks for it."""

from __future__ import annotations

import re

# What a prompt may open: a block of reasoning.
_OPENED = re.compile(r"\s*<(\w+)>\s*")


def completion_behind(prompt: str, whole: str, answer: str) -> str:
    """Return how the model has to go on from a prompt, to the end of its turn.

    Where the prompt opens a block of reasoning that the template then leaves out, the completion closes it, behind the
    reasoning that the answer itself may have.

    Args:
        prompt: The rendered text that asks for an answer.
        whole: The rendered conversation with the answer.
        answer: The answer as the template was given it.
    """
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    shortest = min(len(prompt), len(whole))
    num_shared = next((i for i in range(shortest) if prompt[i] != whole[i]), shortest)
    opened = _OPENED.fullmatch(prompt[num_shared:])
    if opened is None:
        return whole[num_shared:]
    start, end = f"<{opened[1]}>", f"</{opened[1]}>"
    reasoning, _, _ = answer.rpartition(end)
    return f"{reasoning.strip().removeprefix(start).strip()}\n{end}\n\n{whole[num_shared:]}"
