"""The form in which a chat template takes tools, their calls, their results and reasoning, found by trying it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sienn_ray.datasets.content_form import form_of
from sienn_ray.datasets.template_probes import found_once, tried

# Nine letters and digits: Mistral's templates ask for that.
_NAME, _ID, _KEY, _VALUE = "probe_tool", "probe0001", "probe_key", "probe value"
_RESULT, _REASON, _QUESTION = "A probe's result.", "A probe thinks.", "What does the probe see?"
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {_KEY: {"type": "string", "description": "A value."}},
            "required": [_KEY],
        },
    },
}
_CALL = {"id": _ID, "type": "function", "function": {"name": _NAME, "arguments": json.dumps({_KEY: _VALUE})}}
_USER = {"role": "user", "content": _QUESTION}
_ANSWER = {"role": "assistant", "content": "Whatever is there."}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class CallForm:
    """The form in which a template takes messages that call tools.

    Args:
        has_text_arguments: Arguments are the text of a JSON object, rather than the object.
        has_empty_content: A message without content has an empty one, rather than none.
    """

    has_text_arguments: bool = False
    has_empty_content: bool = True

    def of(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Bring a message with calls into this form; its arguments are text."""
        calls = message["tool_calls"]
        if not self.has_text_arguments:
            calls = [
                {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
                for call in calls
            ]
        content = message["content"] or ("" if self.has_empty_content else None)
        return {**message, "content": content, "tool_calls": calls}


@dataclass(frozen=True)
class ResultForm:
    """The form in which a template takes what tools answer.

    Args:
        has_names: A tool's message has the name of the tool.
    """

    has_names: bool = False


def reads_tools(tokenizer: Any, chat_template: str | None) -> bool:
    """Return whether a template tells the model of its tools."""
    return found_once(_reads_tools, tokenizer, chat_template)


def call_form(tokenizer: Any, chat_template: str | None) -> CallForm | None:
    """Return the form of calls; None where the template leaves them out."""
    return found_once(_call_form, tokenizer, chat_template)


def result_form(tokenizer: Any, chat_template: str | None) -> ResultForm | None:
    """Return the form of tools' messages; None where the template leaves them out."""
    return found_once(_result_form, tokenizer, chat_template)


def reasoning_key(tokenizer: Any, chat_template: str | None) -> str | None:
    """Return the key of a message's reasoning; `content` where it stands in that, None where it is left out."""
    return found_once(_reasoning_key, tokenizer, chat_template)


def _reads_tools(tokenizer: Any, chat_template: str | None) -> bool:
    messages = form_of(tokenizer, chat_template).of([_USER])
    text = tried(tokenizer, chat_template, messages, tools=[_TOOL], add_generation_prompt=True)
    return text is not None and _NAME in text


def _call_form(tokenizer: Any, chat_template: str | None) -> CallForm | None:
    for has_text_arguments, has_empty_content in product((False, True), (True, False)):
        form = CallForm(has_text_arguments, has_empty_content)
        text = _tried(tokenizer, chat_template, [_USER, form.of(_CALLING)])
        if text is not None and _shows_call(text):
            return form
    return None


def _shows_call(text: str) -> bool:
    """Whether a call is there, its arguments neither as Python writes them nor as JSON within JSON."""
    _, _, rest = text.rpartition(_QUESTION)
    is_python, is_twice = f"'{_KEY}'" in rest, f'\\"{_KEY}' in rest
    return all(part in rest for part in (_NAME, _KEY, _VALUE)) and not is_python and not is_twice


def _result_form(tokenizer: Any, chat_template: str | None) -> ResultForm | None:
    calls = call_form(tokenizer, chat_template)
    for has_names in (False, True):
        result = {"role": "tool", "tool_call_id": _ID, "content": _RESULT, **({"name": _NAME} if has_names else {})}
        # Where calls are left out, they may stand in contents, as text that the user wrote.
        before = calls.of(_CALLING) if calls else {"role": "assistant", "content": _NAME}
        text = _tried(tokenizer, chat_template, [_USER, before, result], add_generation_prompt=True)
        if text is not None and _RESULT in text:
            return ResultForm(has_names)
    return None


def _reasoning_key(tokenizer: Any, chat_template: str | None) -> str | None:
    form = call_form(tokenizer, chat_template)
    # Some read the reasoning before calls of tools alone.
    answers: list[dict[str, Any]] = [_ANSWER] if form is None else [_ANSWER, form.of(_CALLING)]
    for answer in answers:
        for key in _REASONING_KEYS:
            text = _tried(tokenizer, chat_template, [_USER, {**answer, key: _REASON}])
            if text is not None and _REASON in text:
                return key
    return "content" if "</think>" in (chat_template or "") else None


def _tried(
    tokenizer: Any,
    chat_template: str | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = False,
) -> str | None:
    return tried(
        tokenizer,
        chat_template,
        form_of(tokenizer, chat_template).of(messages),
        tools=[_TOOL] if reads_tools(tokenizer, chat_template) else None,
        add_generation_prompt=add_generation_prompt,
    )
