"""Rows with a better and a worse answer, brought to TRL's form with an explicit prompt.

The forms are those of TRL (https://huggingface.co/docs/trl/dataset_formats#preference), of OpenAI's guide to direct
preference optimization, of LLaMA-Factory and ms-swift, of UltraFeedback and Orca, and of Anthropic's HH.
"""

from __future__ import annotations

import re
from typing import Any

from sienn_ray.datasets.preference import preference_row
from sienn_ray.datasets.schema import CanonicalRow
from sienn_ray.datasets.shapes.fields import Fields, is_empty
from sienn_ray.datasets.shapes.findings import Finding
from sienn_ray.datasets.shapes.names import Part
from sienn_ray.datasets.shapes.pairs import history_of, prompt_text, system_messages
from sienn_ray.datasets.shapes.turns import messages_of
from sienn_ray.datasets.wording import kind_of
from sienn_ray.errors import InvalidDatasetError

# Anthropic's HH writes a conversation as one text.
_TURN_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
_ROLE_OF_MARK = {"Human": "user", "Assistant": "assistant"}
_WITHIN = object()
_CONTEXT = frozenset({Part.SYSTEM, Part.HISTORY, Part.INPUT})


def compared_row(fields: Fields) -> CanonicalRow:
    """Check a row with a better and a worse answer.

    Raises:
        InvalidDatasetError: A part isn't what it has to be.
    """
    prompt, chosen, tools = _asked_and_chosen(fields)
    rejected = _answer(fields, Part.REJECTED)
    if _are_turns_of_text(chosen, rejected):
        if isinstance(prompt, str) and _is_turns_of_text(prompt):
            prompt = _without_open_end(_turns_of_text(fields, prompt, "prompt"))
        chosen, rejected = (_turns_of_text(fields, *each) for each in ((chosen, "chosen"), (rejected, "rejected")))
    elif prompt is _WITHIN and not (_is_whole(chosen) or _is_whole(rejected)):
        chosen, rejected = (_turns_of_text(fields, *each) for each in ((chosen, "chosen"), (rejected, "rejected")))
    if _is_whole(chosen) or _is_whole(rejected):
        prefix, chosen, rejected = _parted(chosen, rejected)
        _check_same_prompt(fields, prompt, prefix, [*prefix, *chosen] if isinstance(chosen, list) else prefix)
        prompt = prefix
    return preference_row(
        {
            "prompt": _with_context(fields, prompt),
            "chosen": chosen,
            "rejected": rejected,
            "tools": tools,
            "chat_template_kwargs": fields.only_object(Part.TEMPLATE_VARIABLES),
        }
    )


def _asked_and_chosen(fields: Fields) -> tuple[Any, Any, Any]:
    """Prompt (`_WITHIN` where the answers have it), better answer, and tools."""
    parts, tools = fields.layout.parts, fields.only_object(Part.TOOLS)
    if Part.PROMPT in parts:
        prompt, own_tools = _prompt(fields)
        if tools is not None and own_tools is not None and tools != own_tools:
            raise InvalidDatasetError("the row has tools in two places, which differ; keep one of them")
        return prompt, _answer(fields, Part.CHOSEN if Part.CHOSEN in parts else Part.COMPLETION), own_tools or tools
    if Part.MESSAGES not in parts:
        return _WITHIN, _answer(fields, Part.CHOSEN), tools
    value, name = fields.value(Part.MESSAGES)
    messages = messages_of(value, name, fields.findings)
    if not isinstance(messages, list) or not messages:
        raise InvalidDatasetError(
            f"column '{name}' must be a list of messages, got {kind_of(messages) if messages else 'none'}"
        )
    if Part.CHOSEN in parts:
        return messages, _answer(fields, Part.CHOSEN), tools
    return messages[:-1], messages[-1:], tools  # the better answer ends the conversation


def _prompt(fields: Fields) -> tuple[Any, Any]:
    """The prompt, and the tools within it."""
    value, name = fields.text_or_messages(Part.PROMPT)
    if not isinstance(value, dict) or "messages" not in value:
        return _turns(fields, value, name), None
    for key, each in value.items():
        if key not in ("messages", "tools") and not is_empty(each):
            fields.findings.ignore(f"{name}.{key}")
    return messages_of(value["messages"], f"{name}.messages", fields.findings), value.get("tools") or None


def _answer(fields: Fields, part: Part) -> Any:
    has_prompt = not fields.layout.parts.keys().isdisjoint({Part.PROMPT, Part.MESSAGES})
    value, name = fields.text_or_messages(part, must_be_messages=not has_prompt)
    return _turns(fields, value, name)


def _turns(fields: Fields, value: Any, name: str) -> Any:
    """Messages of a list of turns or a single one; anything else as it is."""
    if isinstance(value, dict) and ("role" in value or "from" in value):
        value = [value]
    return messages_of(value, name, fields.findings) if isinstance(value, list) else value


def _is_whole(answer: Any) -> bool:
    """Return whether an answer is a conversation that begins with its prompt."""
    if not isinstance(answer, list) or len(answer) < 2 or not isinstance(answer[0], dict):
        return False
    return answer[0].get("role") in ("system", "developer", "user")


def _parted(chosen: Any, rejected: Any) -> tuple[list[Any], Any, Any]:
    """What two answers begin with, of which one or both are whole conversations, and what is left of each."""
    if not _is_whole(rejected):
        return chosen[:-1], chosen[-1:], rejected
    if not _is_whole(chosen):
        return rejected[:-1], chosen, rejected[-1:]
    longest = min(len(chosen), len(rejected)) - 1
    num_same = next((index for index in range(longest) if chosen[index] != rejected[index]), longest)
    if (len(chosen), len(rejected)) != (num_same + 1, num_same + 1):
        raise InvalidDatasetError(
            "columns 'chosen' and 'rejected' must be the same conversation but for the last message, and they part "
            f"at message {num_same + 1} of {len(chosen)} and {len(rejected)}; cut both behind the first that differ"
        )
    return chosen[:num_same], chosen[num_same:], rejected[num_same:]


def _check_same_prompt(fields: Fields, prompt: Any, prefix: list[Any], conversation: list[Any]) -> None:
    if prompt is _WITHIN or is_empty(prompt):
        return
    if isinstance(prompt, str):
        said = [message.get("content") for message in prefix if isinstance(message, dict)]
        is_same = any(isinstance(text, str) and text.strip() == prompt.strip() for text in said)
    else:
        is_same = isinstance(prompt, list) and (prompt == conversation or prefix[-len(prompt) :] == prompt)
    if not is_same:
        name = (fields.layout.parts.get(Part.PROMPT) or fields.layout.parts[Part.MESSAGES]).name
        raise InvalidDatasetError(
            f"column '{name}' isn't what the conversations in 'chosen' and 'rejected' begin with; have it left out by "
            f'columns={{"{name}": "ignore"}}, or keep nothing but the answers in these two'
        )


def _are_turns_of_text(*answers: Any) -> bool:
    """Return whether both answers are texts that begin with a turn of the user and end with one of the assistant."""
    return all(
        isinstance(answer, str)
        and _is_turns_of_text(answer)
        and [mark.group(1) for mark in _TURN_MARK.finditer(answer)][-1] == "Assistant"
        for answer in answers
    )


def _is_turns_of_text(text: str) -> bool:
    mark = _TURN_MARK.search(text)
    return mark is not None and mark.group(1) == "Human" and not text[: mark.start()].strip()


def _without_open_end(turns: list[Any]) -> list[Any]:
    """Turns without a last one in which nothing is said, where the answer is to go on."""
    return turns if turns[-1]["content"].strip() else turns[:-1]


def _turns_of_text(fields: Fields, text: Any, name: str) -> list[Any]:
    marks = list(_TURN_MARK.finditer(text)) if isinstance(text, str) else []
    if not marks or text[: marks[0].start()].strip():
        found = "text without them" if isinstance(text, str) else kind_of(text)
        raise InvalidDatasetError(
            f"there is no column with the prompt, so '{name}' must be a whole conversation, a list of messages or text "
            f"with turns of 'Human:' and 'Assistant:', got {found}; add a column 'prompt', or name it by columns"
        )
    fields.findings.add(Finding.SPLIT_TEXT)
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [
        {"role": _ROLE_OF_MARK[mark.group(1)], "content": text[mark.end() : end]}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _with_context(fields: Fields, prompt: Any) -> Any:
    """The prompt, with what stands before and behind it."""
    if fields.layout.beside.keys().isdisjoint(_CONTEXT):
        return prompt
    if isinstance(prompt, list):
        if inputs := list(fields.beside(Part.INPUT)):
            raise InvalidDatasetError(
                f"column '{inputs[0][1].name}' can't be put behind a prompt of several messages; put it into them"
            )
        messages = prompt
    else:
        messages = [{"role": "user", "content": prompt_text(fields)}]
    messages = [*history_of(fields), *messages]
    return [*system_messages(fields, messages), *messages]
