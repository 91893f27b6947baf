"""Conversations rendered by a base model's chat template, and what it leaves out of them, which is never silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jinja2

from sienn_ray.chat_templates import limited_rendering
from sienn_ray.datasets.answers import Answer, completion_behind, completion_behind_changed
from sienn_ray.datasets.content_form import form_of
from sienn_ray.datasets.literal_text import literal
from sienn_ray.datasets.template_input import template_messages, template_tools
from sienn_ray.datasets.template_probes import rendered
from sienn_ray.errors import InvalidDatasetError

_MARK = "QxZprobeZxQ"
_END_OF_REASONING = "</think>"


@dataclass(frozen=True)
class Rendering:
    """A chat template, with what a row hands to it beside messages.

    Args:
        tokenizer: The base model's.
        chat_template: The template.
        tools: Tools in OpenAI's form.
        variables: Further variables of the template.
    """

    tokenizer: Any
    chat_template: str | None
    tools: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] | None = None

    def text(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """Render a conversation.

        Args:
            messages: Messages in OpenAI's form.
            add_generation_prompt: Whether to ask for an answer behind it.

        Raises:
            InvalidDatasetError: The template refuses it, or has no place for tools, their calls or their results.
        """
        try:
            with limited_rendering(self.tokenizer):
                return rendered(
                    self.tokenizer,
                    self.chat_template,
                    template_messages(self.tokenizer, self.chat_template, messages),
                    add_generation_prompt=add_generation_prompt,
                    tools=template_tools(self.tokenizer, self.chat_template, self.tools),
                    variables=self.variables,
                )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise InvalidDatasetError(f"the base model's chat template refuses a conversation: {error}") from error

    def answer(self, messages: Sequence[Mapping[str, Any]], *, num_checked: int = 0) -> Answer:
        """Render the last message behind the text that asks for it.

        Args:
            messages: Messages in OpenAI's form that end with the assistant's.
            num_checked: Messages that are known to be there in full.

        Raises:
            InvalidDatasetError: The template refuses the conversation, or leaves a part of it out.
        """
        if form_of(self.tokenizer, self.chat_template).leaves_out:
            raise InvalidDatasetError(
                "the base model's chat template leaves out what messages say; choose another base model, or give it a "
                "chat template"
            )
        whole = self.text(messages, add_generation_prompt=False)
        prompt = self._prompt(messages, whole)
        completion = self._completion(messages, prompt, whole)
        for index in range(num_checked, len(messages)):
            is_last = index == len(messages) - 1
            self._check(messages, index, completion if is_last else prompt, is_answer=is_last)
        return Answer(prompt, completion, self._num_given_chars(messages, whole, completion))

    def _completion(self, messages: Sequence[Mapping[str, Any]], prompt: str, whole: str) -> str:
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        try:
            begin = partial(self._begin_of_content, messages, whole)
            return completion_behind(prompt, whole, self._content(messages), begin)
        except InvalidDatasetError:
            answer = messages[-1]
            calls = [call["function"]["name"] for call in answer.get("tool_calls") or ()]
            firsts = (answer.get("reasoning_content") or "", answer["content"], *calls)
            first = next(literal(self.tokenizer, each).strip() for each in firsts if each.strip())
            before = self.text(messages[:-1], add_generation_prompt=False)
            found = completion_behind_changed(prompt, before, whole, first)
            if found is not None:
                return found
            if answer.get("reasoning_content") and prompt.rstrip().endswith(_END_OF_REASONING):
                raise InvalidDatasetError(
                    "the base model's chat template ends the reasoning before the answer, which has reasoning of its "
                    "own; set the template's variable for it (often enable_thinking) to true, or remove the reasoning"
                ) from None
            raise

    def _prompt(self, messages: Sequence[Mapping[str, Any]], whole: str) -> str:
        before = messages[:-1]
        if any(message["role"] in {"user", "tool"} for message in before):
            return self.text(before, add_generation_prompt=True)
        # The assistant begins. Most templates ask for nothing where nobody has spoken yet.
        try:
            if before:
                return self.text(before, add_generation_prompt=True)
        except InvalidDatasetError:
            pass
        begin, _ = self._around_answer(messages, whole)
        if begin is None:
            raise InvalidDatasetError(
                "the base model's chat template can't render a conversation that the assistant begins; put the user's "
                "message first"
            )
        return begin

    def _begin_of_content(self, messages: Sequence[Mapping[str, Any]], whole: str) -> int | None:
        """Where the last message's content begins in the rendered conversation; None where a template changes it."""
        said = literal(self.tokenizer, messages[-1]["content"]).strip()
        _, behind = self._around_answer(messages, whole)
        before = None if behind is None else whole[: len(whole) - len(behind)].rstrip()
        return None if not said or before is None or not before.endswith(said) else len(before) - len(said)

    def _around_answer(self, messages: Sequence[Mapping[str, Any]], whole: str) -> tuple[str | None, str | None]:
        """What a template writes before the last message's reasoning and content, and behind its content.

        They are found by a mark in the content's place: the content itself may be in other messages, or in the
        template's own marks. None where they aren't in the rendered conversation.
        """
        mark = _MARK
        while mark in whole:
            mark += _MARK[-1]
        reasoning = {"reasoning_content": mark} if messages[-1].get("reasoning_content") else {}
        try:
            marked = self.text(
                [*messages[:-1], {**messages[-1], **reasoning, "content": mark}], add_generation_prompt=False
            )
        except InvalidDatasetError:
            return None, None
        before, found, _ = marked.partition(mark)
        behind = marked.rpartition(mark)[2]
        return (before if found and whole.startswith(before) else None), (
            behind if found and whole.endswith(behind) else None
        )

    def _content(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The last message's content as the template is given it."""
        *_, formed = template_messages(self.tokenizer, self.chat_template, messages[-1:])
        content = formed["content"]
        return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""

    def _check(self, messages: Sequence[Mapping[str, Any]], index: int, text: str, *, is_answer: bool) -> None:
        """Refuse a template that leaves a message out of the text that it makes."""
        message = messages[index]
        thoughts, said = _split(message)
        if not self._is_in(text, said) and not self._reads(messages, index, "content", _MARK):
            self._refuse("the content", messages, index)
        if is_answer:  # reasoning of earlier turns is left out by most templates that know any
            within = f"<think>\n{_MARK}\n{_END_OF_REASONING}\n\n{said}"
            if not self._is_in(text, thoughts) and not self._reads(messages, index, "content", within):
                self._refuse("the reasoning", messages, index)
            reasoning = message.get("reasoning_content", "")
            if not self._is_in(text, reasoning) and not self._reads(messages, index, "reasoning_content", _MARK):
                self._refuse("the reasoning", messages, index)
        called = Counter(call["function"]["name"] for call in message.get("tool_calls") or ())
        # Some render the first call alone.
        if any(text.count(literal(self.tokenizer, name)) < num_calls for name, num_calls in called.items()):
            self._refuse("calls of tools", messages, index)

    def _is_in(self, text: str, piece: str) -> bool:
        said = piece.strip()
        return said in text or literal(self.tokenizer, said) in text

    def _reads(self, messages: Sequence[Mapping[str, Any]], index: int, key: str, value: str) -> bool:
        """Whether a template reads a part of a message at all, which it may have trimmed or written otherwise."""
        marked = [*messages[:index], {**messages[index], key: value}, *messages[index + 1 :]]
        try:
            is_answer = index == len(messages) - 1
            text = self.text(marked if is_answer else marked[:-1], add_generation_prompt=not is_answer)
        except InvalidDatasetError:
            return False
        return _MARK in text

    def _refuse(self, what: str, messages: Sequence[Mapping[str, Any]], index: int) -> None:
        others = "" if what == "the content" else ", write it into the content"
        raise InvalidDatasetError(
            f"the base model's chat template leaves out {what} of messages[{index}], which is the "
            f"{messages[index]['role']}'s; remove it{others}, or choose another base model"
        )

    def _num_given_chars(self, messages: Sequence[Mapping[str, Any]], whole: str, completion: str) -> int:
        given = messages[-1].get("prefix")
        if not isinstance(given, str) or not given.strip():
            return 0
        begin = self._begin_of_content(messages, whole)
        if begin is None or not completion.endswith(whole[begin:]):
            raise InvalidDatasetError(
                "the base model's chat template changes an answer, so its prefix can't be told from its rest; remove "
                "prefix"
            )
        return len(completion) - len(whole[begin:]) + len(literal(self.tokenizer, given).lstrip())


def _split(message: Mapping[str, Any]) -> tuple[str, str]:
    """Reasoning that an answer's content begins with, and the rest of it."""
    content: str = message["content"]
    if message["role"] != "assistant" or _END_OF_REASONING not in content:
        return "", content
    thoughts, _, said = content.rpartition(_END_OF_REASONING)
    return thoughts.strip().removeprefix("<think>"), said
