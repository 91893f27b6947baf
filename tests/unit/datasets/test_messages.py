from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.canonical import canonical_row
from sienn_ray.datasets.schema import DatasetFormat, Message, Role
from sienn_ray.errors import InvalidDatasetError


def chat(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} {index}"} for index, role in enumerate(roles)]}


@pytest.mark.parametrize(
    "roles",
    [
        ("user", "assistant"),
        ("system", "user", "assistant"),
        ("user", "assistant", "user", "assistant"),
        ("system", "user", "assistant", "user", "assistant"),
    ],
)
def test_chat_is_kept_as_it_is(roles: tuple[str, ...]) -> None:
    raw_row = chat(*roles)
    row = canonical_row(DatasetFormat.CHAT, raw_row)
    assert row.text is None
    assert [{"role": m.role, "content": m.content} for m in row.messages or ()] == raw_row["messages"]


def test_system_message_may_be_empty() -> None:
    raw_row = chat("system", "user", "assistant")
    raw_row["messages"][0]["content"] = ""
    assert (canonical_row(DatasetFormat.CHAT, raw_row).messages or ())[0] == Message(Role.SYSTEM, "")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (("assistant", "user"), r"messages\[0\].role must be user, got assistant"),
        (("user", "user", "assistant"), r"messages\[1\].role must be assistant, got user"),
        (("user", "assistant", "assistant"), r"messages\[2\].role must be user, got assistant"),
        (("system", "assistant"), r"messages\[1\].role must be user, got assistant"),
        (("user", "system", "assistant"), r"messages\[1\].role is system, which may only come first"),
        (("system", "system", "user", "assistant"), r"messages\[1\].role is system"),
        (("user", "assistant", "user"), "the last message must be the assistant's, got user"),
        (("user",), "the last message must be the assistant's, got user"),
        (("system",), "the last message must be the assistant's, got system"),
        (("user", "tool"), r"messages\[1\].role must be one of system, user, assistant, got 'tool'"),
        (("User", "assistant"), r"messages\[0\].role must be one of"),
    ],
)
def test_chat_turns_are_checked(roles: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=f"^{message}"):
        canonical_row(DatasetFormat.CHAT, chat(*roles))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "must be a list of {role, content} objects, got null"),
        ({"role": "user", "content": "a"}, "must be a list of .*, got an object"),
        ('[{"role": "user"}]', "got a string; chats need JSON or JSONL"),
        ([], "at least one user and one assistant message, got none"),
        (["a"], r"messages\[0\] must be an object with role and content, got a string"),
        ([{"content": "a"}], r"messages\[0\] has no 'role'; it has 'content'"),
        ([{"role": "user"}], r"messages\[0\] has no 'content'"),
        ([{"role": 1, "content": "a"}], r"messages\[0\].role must be a string, got a number"),
        ([{"role": ["user"], "content": "a"}], r"messages\[0\].role must be a string, got a list"),
        ([{"role": "user", "content": None}], r"messages\[0\].content must be a string, got null"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\].content must be a string, got a list"),
        ([{"role": "user", "content": " "}], r"messages\[0\].content must not be blank"),
    ],
)
def test_chat_shape_is_checked(messages: object, message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        canonical_row(DatasetFormat.CHAT, {"messages": messages})
