"""The parts of an assistant's message: the same however its text is cut into pieces."""

from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.api.answers.message_reader import MessageReader
from sienn_ray.inference.engine import ToolCall

HOURS = {
    "type": "function",
    "function": {
        "name": "hours",
        "parameters": {"properties": {"day": {"type": "string"}, "weeks": {"type": "integer"}}},
    },
}
MONDAY = ToolCall("hours", '{"day": "Monday"}')
TAGGED = '<tool_call>\n{"name": "hours", "arguments": {"day": "Monday"}}\n</tool_call>'


def parts(text: str, size: int = 10_000, **options: Any) -> tuple[str, str, list[ToolCall]]:
    """Reasoning, content and calls of a text that comes in pieces of a size."""
    reader = MessageReader(**options)
    pieces = [each for start in range(0, len(text), size) for each in reader.push(text[start : start + size])]
    pieces += reader.end()
    calls = [each.call for each in pieces if each.call is not None]
    return "".join(each.reasoning for each in pieces), "".join(each.content for each in pieces), calls


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Yes.", {}, ("", "Yes.", [])),
        ("", {}, ("", "", [])),
        ("Is 1 < 3 <thin", {}, ("", "Is 1 < 3 <thin", [])),
        ("<think>\nIt is noon. \n</think>\n\nYes.", {}, ("It is noon.", "Yes.", [])),
        ("<think>\n\n</think>\n\nYes.", {}, ("", "Yes.", [])),
        ("It is noon.\n</think>\n\nYes.", {"begins_in_reasoning": True}, ("It is noon.", "Yes.", [])),
        ("<think>It is noon.</think>Yes.", {"begins_in_reasoning": True}, ("It is noon.", "Yes.", [])),
        ("<think>It is no", {}, ("It is no", "", [])),
        ("Yes <think>no</think>", {}, ("", "Yes <think>no</think>", [])),
        ("<think>a</think>b", {"reads_reasoning": False}, ("", "<think>a</think>b", [])),
        (TAGGED, {}, ("", TAGGED, [])),
        (TAGGED, {"tools": [HOURS]}, ("", "", [MONDAY])),
        (f"Let me see.\n{TAGGED}\n{TAGGED}", {"tools": [HOURS]}, ("", "Let me see.", [MONDAY, MONDAY])),
        (f"<think>When?</think>\n{TAGGED}", {"tools": [HOURS]}, ("When?", "", [MONDAY])),
        (TAGGED.removesuffix("</tool_call>"), {"tools": [HOURS]}, ("", "", [MONDAY])),
        ('{"name": "hours", "parameters": {"day": "Monday"}}', {"tools": [HOURS]}, ("", "", [MONDAY])),
        ('[{"name": "hours", "arguments": {"day": "Monday"}}]', {"tools": [HOURS]}, ("", "", [MONDAY])),
        ('{"name": "Ada", "parameters": {}}', {"tools": [HOURS]}, ("", '{"name": "Ada", "parameters": {}}', [])),
        ('{"name": "hours"}', {"tools": [HOURS]}, ("", '{"name": "hours"}', [])),
        (
            "<tool_call>\n<function=hours>\n<parameter=day>\nMonday\n</parameter>\n</function>\n</tool_call>",
            {"tools": [HOURS]},
            ("", "", [MONDAY]),
        ),
        (
            "<tool_call><function=hours><parameter=weeks>3</parameter><parameter=day>4</parameter></function></tool_call>",
            {"tools": [HOURS]},
            ("", "", [ToolCall("hours", '{"weeks": 3, "day": "4"}')]),
        ),
    ],
)
def test_parts_of_a_message(text: str, size: int, options: dict[str, Any], expected: Any) -> None:
    assert parts(text, size, **options) == expected


@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>{"name": "hours", "arguments": {"day": </tool_call>',
        '<tool_call>{"name": "hours", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "hours", "arguments": {"n": NaN}}</tool_call>',
        "<tool_call>hours()</tool_call>",
        "<tool_call><function=hours>day=Monday</function></tool_call>",
        "<tool_call><function=hours</tool_call>",
        '<tool_call>{"name": "hours", "argu',
        "<tool_call>" + "[" * 5000 + "</tool_call>",
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_a_broken_call_is_content(broken: str, size: int) -> None:
    assert parts(broken, size, tools=[HOURS]) == ("", broken, [])


def test_text_is_given_as_soon_as_it_can_be() -> None:
    reader = MessageReader([HOURS])
    given = ["".join(piece.content for piece in reader.push(text)) for text in ("Let ", "me <to", "ast> ", "it")]
    assert given == ["Let", " me", " <toast>", " it"]
