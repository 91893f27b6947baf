"""Rows of tools, reasoning and weights, from a file over storage to what people and training read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets import intake
from sienn_ray.datasets.chat_rows import chat_row
from sienn_ray.datasets.row_pages import MAX_STRING_CHARS, MAX_TOOLS_CHARS, ShownRow, read_page
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow, Message, Role, ToolCall
from sienn_ray.datasets.stored_rows import StoredRow, extra_of, message_form, message_of
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.storage import Storage

TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}]
MESSAGES: list[dict[str, Any]] = [
    {"role": "developer", "content": "Sell bread.", "name": "Ada"},
    {"role": "user", "content": "Is there rye?"},
    {"role": "assistant", "content": "Hm.", "weight": 0},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "I have to look.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "stock", "arguments": '{"item":"rye"}'}}],
    },
    {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "stock"},
    {"role": "assistant", "content": "Fo", "prefix": True},
    {"role": "assistant", "content": "ur."},
]
REJECTED = {"role": "assistant", "content": "None.", "reasoning_content": "I guess."}


def written(row: CanonicalRow) -> list[dict[str, Any]]:
    sink = io.BytesIO()
    with RowWriter(sink) as writer:
        writer.add(row, 1, [])
    rows: list[dict[str, Any]] = pq.read_table(sink).to_pylist()
    return rows


def test_a_row_is_read_as_it_was_given() -> None:
    given = chat_row(
        MESSAGES, tools=TOOLS, rejected=REJECTED, label=False, chat_template_kwargs={"enable_thinking": True}
    )
    (stored,) = written(given)
    assert StoredRow.of(stored) == StoredRow(
        messages=MESSAGES,
        text=None,
        rejected=REJECTED,
        tools=TOOLS,
        label=False,
        chat_template_kwargs={"enable_thinking": True},
    )


def test_a_plain_row_has_nothing_beside_its_messages() -> None:
    plain = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1, "reasoning": None}]
    (stored,) = written(chat_row(plain))
    assert [message["extra"] for message in stored["messages"]] == [None, None]
    assert {stored[name] for name in ("rejected", "rejected_extra", "tools", "label", "chat_template_kwargs")} == {None}


def test_rows_of_earlier_versions_are_read() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert StoredRow.of({"messages": messages, "text": None}) == StoredRow(messages, None)
    assert StoredRow.of({"messages": None, "text": "t"}) == StoredRow(None, "t")
    assert StoredRow.of({"messages": messages, "text": None, "rejected": "c"}).rejected == {
        "role": "assistant",
        "content": "c",
    }


def test_messages_go_to_the_form_of_templates_and_back() -> None:
    for message in chat_row(MESSAGES).messages or ():
        assert message_of(message_form(message)) == message
    assert extra_of(Message(Role.USER, "a")) is None


@pytest.mark.parametrize(
    ("rejected", "message"),
    [
        ({"role": "user", "content": "a"}, "rejected.role must be assistant, got user"),
        ({"role": "assistant", "content": "b"}, "columns 'chosen' and 'rejected' hold the same answer"),
    ],
)
def test_the_worse_answer_is_another_one_of_the_assistant(rejected: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        chat_row([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], rejected=rejected)


def shown(tmp_path: Path, row: dict[str, Any]) -> ShownRow:
    storage = Storage(f"file://{tmp_path}")
    intake.take(storage, "d", "d.jsonl", io.BytesIO(json.dumps(row).encode()), max_row_bytes=1_000_000)
    (found,) = read_page(storage, "d", offset=0, limit=1).rows
    return found


def test_pages_show_all_of_a_row(tmp_path: Path) -> None:
    row = shown(tmp_path, {"messages": MESSAGES, "tools": TOOLS, "chat_template_kwargs": {"a": 1}})
    assert row.messages == chat_row(MESSAGES).messages
    assert (row.tools, row.chat_template_kwargs, row.label, row.is_truncated) == (TOOLS, {"a": 1}, None, False)


@pytest.mark.parametrize("num_chars", [MAX_STRING_CHARS, MAX_STRING_CHARS + 1])
@pytest.mark.parametrize("field", ["reasoning_content", "arguments"])
def test_pages_cut_what_is_long(tmp_path: Path, field: str, num_chars: int) -> None:
    arguments = json.dumps({"a": "x" * (num_chars - len('{"a": ""}'))})
    call = {"function": {"name": "stock", "arguments": arguments}}
    fields = {"reasoning_content": "x" * num_chars} if field == "reasoning_content" else {"tool_calls": [call]}
    answer = {"role": "assistant", "content": "b", **fields}
    row = shown(tmp_path, {"messages": [{"role": "user", "content": "a"}, answer]})
    found = (row.messages or ())[-1]
    kept = found.reasoning_content if field == "reasoning_content" else found.tool_calls[0].arguments
    assert len(kept or "") == MAX_STRING_CHARS
    assert row.is_truncated is (num_chars > MAX_STRING_CHARS)


def test_pages_leave_out_tools_that_are_long(tmp_path: Path) -> None:
    long = [{"type": "function", "function": {"name": "stock", "description": "x" * MAX_TOOLS_CHARS}}]
    row = shown(tmp_path, {"messages": MESSAGES, "tools": long})
    assert (row.tools, row.is_truncated) == (None, True)


def test_calls_of_before_ids_are_kept(tmp_path: Path) -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "stock", "arguments": "{}"}}
    row = shown(tmp_path, {"messages": [{"role": "user", "content": "a"}, old], "functions": [TOOLS[0]["function"]]})
    assert (row.messages or ())[-1].tool_calls == (ToolCall("stock", "{}"),)
    assert row.tools == TOOLS
