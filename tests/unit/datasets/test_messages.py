from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from sienn_ray.datasets.canonical import canonical_row
from sienn_ray.datasets.schema import CanonicalRow, DatasetFormat, Message, Role, ToolCall
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
        # Whether a chat template renders these is up to it.
        ("assistant", "user", "assistant"),
        ("system", "assistant"),
        ("user", "user", "assistant"),
        ("user", "assistant", "assistant"),
        ("user", "system", "assistant"),
        ("system", "system", "user", "assistant"),
        ("developer", "user", "assistant"),
        ("user", "assistant", "tool", "tool", "assistant"),
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
        (("user", "assistant", "user"), "the last message must be the assistant's, got user"),
        (("user",), "the last message must be the assistant's, got user"),
        (("system",), "the last message must be the assistant's, got system"),
        (
            ("assistant", "user"),
            "the last message must be the assistant's, got user; remove what follows the last answer",
        ),
        (
            ("user", "tool", "assistant"),
            r"messages\[1\] is a tool's, which may only follow .* a message of the user",
        ),
        (("tool", "assistant"), r"messages\[0\] is a tool's, .* but nothing comes before it"),
        (
            ("user", "narrator"),
            r"messages\[1\].role must be one of system, developer, user, assistant, tool, got 'narrator'",
        ),
        (("Userr", "assistant"), r"messages\[0\].role must be one of"),
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
        ('[{"role": "user"}]', r"messages\[0\] has no 'content'"),
        ("user: hello", "got a string; chats need JSON or JSONL"),
        ([], "at least one user and one assistant message, got none"),
        (["a"], r"messages\[0\] must be an object with role and content, got a string"),
        ([{"content": "a"}], r"messages\[0\] has no 'role'; it has 'content'"),
        ([{"role": "user"}], r"messages\[0\] has no 'content'"),
        ([{"role": 1, "content": "a"}], r"messages\[0\].role must be a string, got a number"),
        ([{"role": ["user"], "content": "a"}], r"messages\[0\].role must be a string, got a list"),
        ([{"role": "user", "content": None}], r"messages\[0\].content must be a string, got null"),
        ([{"role": "user", "content": {"a": 1}}], r"messages\[0\].content must be a string, got an object"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\].content\[0\] has no 'text'; it has 'type'"),
        ([{"role": "user", "content": " "}], r"messages\[0\].content must not be blank"),
    ],
)
def test_chat_shape_is_checked(messages: object, message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        canonical_row(DatasetFormat.CHAT, {"messages": messages})


QUESTION = {"role": "user", "content": "Is there rye left?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": '{"item":"rye"}'}}


def row_of(*messages: dict[str, Any], **columns: Any) -> CanonicalRow:
    return canonical_row(DatasetFormat.CHAT, {"messages": [QUESTION, *messages], **columns})


def last(*messages: dict[str, Any]) -> Message:
    return (row_of(*messages).messages or ())[-1]


def fault_of(*messages: dict[str, Any], **columns: Any) -> str:
    with pytest.raises(InvalidDatasetError) as error:
        row_of(*messages, **columns)
    return error.value.message


class TestToolCalls:
    @pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {"content": []}, {}])
    def test_need_no_content(self, content: dict[str, Any]) -> None:
        found = last({"role": "assistant", "tool_calls": [CALL], **content})
        assert found == Message(Role.ASSISTANT, "", tool_calls=(ToolCall("stock", '{"item":"rye"}', "c1"),))

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ('{"item": "rye"}', '{"item": "rye"}'),
            ({"item": "Straße"}, '{"item": "Straße"}'),
            ("", "{}"),
            (None, "{}"),
            ({}, "{}"),
        ],
    )
    def test_arguments_are_an_object_or_its_text(self, arguments: object, text: str) -> None:
        calls = [{"function": {"name": "stock", "arguments": arguments}}]
        assert last({"role": "assistant", "content": None, "tool_calls": calls}).tool_calls == (
            ToolCall("stock", text),
        )

    @pytest.mark.parametrize("key", ["arguments", "parameters", "input", "args"])
    @pytest.mark.parametrize("arguments", [{"item": "rye"}, '{"item": "rye"}'])
    def test_arguments_have_many_names(self, key: str, arguments: object) -> None:
        function = {"name": "stock", key: arguments}
        expected = (ToolCall("stock", '{"item": "rye"}'),)
        for calls in ([{"function": function}], [function], [{**function, "arguments": arguments}]):
            assert last({"role": "assistant", "content": None, "tool_calls": calls}).tool_calls == expected
        assert last({"role": "assistant", "content": None, "function_call": function}).tool_calls == expected

    def test_may_have_empty_keys_and_a_place(self) -> None:
        function: Any = CALL["function"]
        call = {**CALL, "index": 0, "extra": None, "function": {**function, "description": None, "args": {}}}
        assert last({"role": "assistant", "content": None, "tool_calls": [call]}).tool_calls == (
            ToolCall("stock", '{"item":"rye"}', "c1"),
        )

    def test_come_in_the_form_of_before_and_without_the_function_around_them(self) -> None:
        old = last({"role": "assistant", "content": None, "function_call": CALL["function"]})
        flat = last({"role": "assistant", "content": None, "tool_calls": [{"name": "stock", "arguments": {}}]})
        assert old.tool_calls == (ToolCall("stock", '{"item":"rye"}'),)
        assert flat.tool_calls == (ToolCall("stock", "{}"),)

    @pytest.mark.parametrize(
        ("calls", "message"),
        [
            ("soon", "messages[1].tool_calls must be JSON, got 'soon'"),
            ({"name": "stock"}, "messages[1].tool_calls must be a list of calls, got an object"),
            (["stock"], "messages[1].tool_calls[0] must be an object, got a string"),
            ([{"id": "c1"}], "messages[1].tool_calls[0] must be an object with a name and arguments; it has 'id'"),
            (
                [{"function": "stock"}],
                "messages[1].tool_calls[0].function must be an object with a name and arguments; it is a string",
            ),
            ([{"type": "custom", "custom": {}}], "messages[1].tool_calls[0].type must be 'function', got 'custom'"),
            ([{**CALL, "id": 7}], "messages[1].tool_calls[0].id must be a string, got a number"),
            (
                [{"function": {"name": "stock", "arguments": "{rye}"}}],
                "messages[1].tool_calls[0].function.arguments must be JSON, got '{rye}'",
            ),
            (
                [{"function": {"name": "stock", "arguments": "[1]"}}],
                "messages[1].tool_calls[0].function.arguments must be a JSON object, got a list",
            ),
            (
                [{"function": {"name": "stock", "arguments": {"a": float("nan")}}}],
                "messages[1].tool_calls[0].function.arguments has a value that JSON can't say",
            ),
            ([{"function": {"name": " "}}], "messages[1].tool_calls[0].function.name must not be blank"),
            (
                [{"function": {"name": "stock", "kwargs": {"item": "rye"}}}],
                "messages[1].tool_calls[0].function has 'kwargs', which no call is read from; a function that",
            ),
            ([{"name": "stock", "item": "rye"}], "messages[1].tool_calls[0] has 'item', which no call is read from"),
            (
                [{**CALL, "arguments": {"item": "rye"}}],
                "messages[1].tool_calls[0] has 'arguments', which no call is read from; a call may have id, type and",
            ),
            (
                [{"name": "stock", "arguments": {"item": "rye"}, "input": {"item": "oat"}}],
                "messages[1].tool_calls[0] has both arguments and input, which differ; keep arguments",
            ),
        ],
    )
    def test_are_checked(self, calls: object, message: str) -> None:
        assert fault_of({"role": "assistant", "content": None, "tool_calls": calls}).startswith(message)

    def test_are_not_nested_without_end(self) -> None:
        deep: dict[str, Any] = {}
        for _ in range(100):
            deep = {"a": deep}
        calls = [{"function": {"name": "stock", "arguments": deep}}]
        message = fault_of({"role": "assistant", "content": None, "tool_calls": calls})
        assert message == (
            "messages[1].tool_calls[0].function.arguments is nested more than 50 levels deep; make it flatter"
        )

    def test_are_the_assistant_s(self) -> None:
        message = fault_of(
            {"role": "user", "content": "a", "tool_calls": [CALL]}, {"role": "assistant", "content": "b"}
        )
        assert message.startswith("messages[1].tool_calls is on a message of the user, but only the assistant's can")

    def test_of_both_forms_are_too_many(self) -> None:
        both = {"role": "assistant", "content": None, "tool_calls": [CALL], "function_call": CALL["function"]}
        assert fault_of(both) == "messages[1] has both tool_calls and function_call; keep tool_calls"


class TestResults:
    CALLING: ClassVar[dict[str, Any]] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    ANSWER: ClassVar[dict[str, Any]] = {"role": "assistant", "content": "Four loaves."}

    def result(self, **fields: Any) -> Message:
        return (row_of(self.CALLING, {"role": "tool", "tool_call_id": "c1", **fields}, self.ANSWER).messages or ())[2]

    @pytest.mark.parametrize(
        ("content", "text"),
        [("4", "4"), ("", ""), ({"left": 4}, '{"left": 4}'), ([4], "[4]"), ([{"type": "text", "text": "4"}], "4")],
    )
    def test_may_be_json_and_empty(self, content: object, text: str) -> None:
        assert self.result(content=content) == Message(Role.TOOL, text, tool_call_id="c1")

    def test_have_names(self) -> None:
        assert self.result(content="4", name="stock").name == "stock"
        old = row_of(self.CALLING, {"role": "function", "name": "stock", "content": "4"}, self.ANSWER)
        assert (old.messages or ())[2] == Message(Role.TOOL, "4", name="stock")

    def test_answer_calls_that_were_made(self) -> None:
        other = {"role": "tool", "tool_call_id": "c9", "content": "4"}
        assert fault_of(self.CALLING, other, self.ANSWER) == (
            "messages[2].tool_call_id is 'c9', but the calls before it have the ids 'c1'"
        )

    def test_are_not_the_end(self) -> None:
        message = fault_of(self.CALLING, {"role": "tool", "tool_call_id": "c1", "content": "4"})
        assert message.startswith("the last message must be the assistant's, got tool")


class TestTools:
    FUNCTION: ClassVar[dict[str, Any]] = {"name": "stock", "parameters": {"type": "object"}}
    ANSWER: ClassVar[dict[str, Any]] = {"role": "assistant", "content": "No."}

    @pytest.mark.parametrize("column", ["tools", "functions"])
    @pytest.mark.parametrize("is_text", [True, False])
    @pytest.mark.parametrize("is_bare", [True, False])
    def test_are_kept_in_one_form(self, column: str, is_text: bool, is_bare: bool) -> None:
        whole = [{"type": "function", "function": self.FUNCTION}]
        tools = [self.FUNCTION] if is_bare else whole
        row = row_of(self.ANSWER, **{column: json.dumps(tools) if is_text else tools})
        assert json.loads(row.tools or "") == whole

    @pytest.mark.parametrize("tools", [None, "", [], "[]"])
    def test_may_be_none(self, tools: object) -> None:
        assert row_of(self.ANSWER, tools=tools).tools is None

    @pytest.mark.parametrize(
        ("tools", "message"),
        [
            ("stock", "column 'tools' must be JSON, got 'stock'"),
            ({"stock": {}}, "column 'tools' must be a list of tools, got an object"),
            (["stock"], "column 'tools'[0] must be an object, got a string"),
            ([{"type": "function"}], "column 'tools'[0] must be an object with a name, a description and parameters"),
            ([{"function": "stock"}], "column 'tools'[0].function must be an object with a name"),
        ],
    )
    def test_are_checked(self, tools: object, message: str) -> None:
        assert fault_of(self.ANSWER, tools=tools).startswith(message)

    def test_variables_of_the_template_are_kept(self) -> None:
        row = row_of(self.ANSWER, chat_template_kwargs={"enable_thinking": False})
        assert row.chat_template_kwargs == '{"enable_thinking": false}'
        message = fault_of(self.ANSWER, chat_template_kwargs=[1])
        assert message == "column 'chat_template_kwargs' must be a JSON object, got a list"


class TestReasoning:
    @pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
    def test_has_the_names_that_models_have_for_it(self, key: str) -> None:
        assert last({"role": "assistant", "content": "24", key: "3 times 8"}).reasoning_content == "3 times 8"

    def test_may_be_a_part(self) -> None:
        text = {"type": "text", "text": "3 times 8"}
        for thinking in ("3 times 8", [text]):
            parts = [{"type": "thinking", "thinking": thinking}, {"type": "text", "text": "24"}]
            found = last({"role": "assistant", "content": parts})
            assert (found.content, found.reasoning_content) == ("24", "3 times 8")

    @pytest.mark.parametrize("nothing", [None, "", "\n"])
    def test_may_be_none(self, nothing: object) -> None:
        assert last({"role": "assistant", "content": "24", "reasoning_content": nothing}).reasoning_content is None

    def test_is_one(self) -> None:
        same = {"role": "assistant", "content": "24", "reasoning": "a", "thinking": "a"}
        assert last(same).reasoning_content == "a"
        message = fault_of({**same, "reasoning": "b"})
        assert message == "messages[1] has different reasoning in thinking and reasoning; keep one of them"

    def test_is_the_assistant_s_and_text(self) -> None:
        answer = {"role": "assistant", "content": "24"}
        message = fault_of({"role": "user", "content": "a", "thinking": "b"}, answer)
        assert message.startswith("messages[1].thinking is on a message of the user")
        assert fault_of({**answer, "reasoning": {"a": 1}}) == "messages[1].reasoning must be a string, got an object"

    def test_within_contents_stays_there(self) -> None:
        found = last({"role": "assistant", "content": "<think>\na\n</think>\n\n24"})
        assert (found.content, found.reasoning_content) == ("<think>\na\n</think>\n\n24", None)


class TestWeights:
    @pytest.mark.parametrize(("weight", "kept"), [(0, 0), (1, 1), (0.0, 0), (True, 1), (None, 1)])
    def test_are_zero_or_one(self, weight: object, kept: int) -> None:
        row = row_of({"role": "assistant", "content": "a", "weight": weight}, {"role": "assistant", "content": "b"})
        assert (row.messages or ())[1].weight == kept

    @pytest.mark.parametrize(("weight", "found"), [(0.5, "0.5"), (2, "2"), (-1, "-1"), ("0", "a string")])
    def test_of_other_values_are_refused(self, weight: object, found: str) -> None:
        message = fault_of({"role": "assistant", "content": "a", "weight": weight})
        assert message == f"messages[1].weight must be 0 (read, but not learned) or 1, got {found}"

    def test_leave_something_to_learn(self) -> None:
        message = fault_of({"role": "assistant", "content": "a", "weight": 0})
        assert message.startswith("every assistant message of messages has weight 0, so there is nothing to learn")

    def test_are_the_assistant_s(self) -> None:
        answer = {"role": "assistant", "content": "a"}
        assert row_of({"role": "user", "content": "b", "weight": 0}, answer) == row_of(
            {"role": "user", "content": "b"}, answer
        )
        message = fault_of({"role": "user", "content": "b", "weight": 1}, answer)
        assert message.startswith("messages[1].weight is 1 on a message of the user, but only the assistant's")


class TestPrefix:
    BEGIN: ClassVar[dict[str, Any]] = {"role": "assistant", "content": "At", "prefix": True}
    REST: ClassVar[dict[str, Any]] = {"role": "assistant", "content": " six."}

    def test_is_kept_with_its_rest(self) -> None:
        row = row_of(self.BEGIN, self.REST)
        assert (row.messages or ())[1:] == (
            Message(Role.ASSISTANT, "At", is_prefix=True),
            Message(Role.ASSISTANT, " six."),
        )
        assert last({**self.REST, "prefix": False}) == Message(Role.ASSISTANT, " six.")

    def test_needs_its_rest(self) -> None:
        assert "nothing follows; add the rest, or remove prefix to learn the whole" in fault_of(self.BEGIN)
        assert "a message of the user follows" in fault_of(self.BEGIN, QUESTION, self.REST)

    def test_is_true_or_false(self) -> None:
        message = fault_of({**self.BEGIN, "prefix": "At"}, self.REST)
        assert message == "messages[1].prefix must be true or false, got a string"


class TestParts:
    @pytest.mark.parametrize(
        ("parts", "text"),
        [
            (["a", "b"], "a\nb"),
            ([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb"),
            ([{"text": "a"}], "a"),
            ([{"type": "refusal", "refusal": "No."}], "No."),
        ],
    )
    def test_of_text_are_joined(self, parts: object, text: str) -> None:
        assert last({"role": "assistant", "content": parts}).content == text

    @pytest.mark.parametrize("kind", ["image_url", "image", "input_audio", "video"])
    def test_of_other_kinds_are_refused_by_name(self, kind: str) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": kind, kind: {"url": "https://example.org/a.png"}}]
        message = fault_of({"role": "user", "content": parts}, {"role": "assistant", "content": "b"})
        assert message.startswith(f"messages[1].content[1] is a part of type '{kind}', and only text is learned;")


def test_names_are_kept() -> None:
    assert last({"role": "assistant", "content": "a", "name": "Ada"}).name == "Ada"
    for blank in ("", " ", None):
        assert last({"role": "assistant", "content": "a", "name": blank}).name is None
    assert (
        fault_of({"role": "assistant", "content": "a", "name": 7}) == "messages[1].name must be a string, got a number"
    )
