"""Conversations rendered by a base model's chat template, and what it leaves out of them, which is never silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from sienn_ray.chat_templates import limited_rendering
from sienn_ray.datasets.answers import Answer, completion_behind
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
        completion = completion_behind(prompt, whole, self._content(messages))
        for index in range(num_checked, len(messages)):
            is_last = index == len(messages) - 1
            self._check(messages, index, completion if is_last else prompt, is_answer=is_last)
        return Answer(prompt, completion, self._num_given_chars(messages[-1], completion))

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
        said = literal(self.tokenizer, messages[-1]["content"]).strip()
        begin = whole.find(said) if said else -1
        if begin < 0:
            raise InvalidDatasetError(
                "the base model's chat template can't render a conversation that the assistant begins; put the user's "
                "message first"
            )
        return whole[:begin]

    def _content(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The last message's content as the template is given it."""
        *_, formed = template_messages(self.tokenizer, self.chat_template, messages[-1:])
        content = formed["content"]
        return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""

    def _check(self, messages: Sequence[Mapping[str, Any]], index: int, text: str, *, is_answer: bool) -> None:
        """Refuse a template that leaves a message out of the text that it makes."""
        message = messages[index]
        pieces = [message["content"]]
        if message["role"] == "assistant":
            # Reasoning of earlier turns is left out by most templates that know any.
            *thoughts, answer = message["content"].split(_END_OF_REASONING)
            pieces = [*(each.replace("<think>", "") for each in thoughts), answer] if is_answer else [answer]
        if not all(self._is_in(text, piece) for piece in pieces) and not self._reads(messages, index, "content"):
            self._refuse("the content", messages, index)
        reasoning = message.get("reasoning_content", "") if is_answer else ""
        if not self._is_in(text, reasoning) and not self._reads(messages, index, "reasoning_content"):
            self._refuse("the reasoning", messages, index)
        for call in message.get("tool_calls") or ():
            if not self._is_in(text, call["function"]["name"]):
                self._refuse("the calls of tools", messages, index)

    def _is_in(self, text: str, piece: str) -> bool:
        said = piece.strip()
        return said in text or literal(self.tokenizer, said) in text

    def _reads(self, messages: Sequence[Mapping[str, Any]], index: int, key: str) -> bool:
        """Whether a template reads a part of a message at all, which it may have trimmed or written otherwise."""
        marked = [*messages[:index], {**messages[index], key: _MARK}, *messages[index + 1 :]]
        try:
            is_answer = index == len(messages) - 1
            text = self.text(marked if is_answer else marked[:-1], add_generation_prompt=not is_answer)
        except InvalidDatasetError:
            return False
        return _MARK in text

    def _refuse(self, what: str, messages: Sequence[Mapping[str, Any]], index: int) -> None:
        raise InvalidDatasetError(
            f"the base model's chat template leaves out {what} of messages[{index}], which is the "
            f"{messages[index]['role']}'s; choose another base model, or write the conversation in another way"
        )

    def _num_given_chars(self, answer: Mapping[str, Any], completion: str) -> int:
        given = answer.get("prefix")
        if not isinstance(given, str):
            return 0
        begin = completion.rfind(literal(self.tokenizer, answer["content"]).strip())
        if begin < 0:
            raise InvalidDatasetError(
                "the base model's chat template changes an answer, so its prefix can't be told from its rest; remove "
                "prefix"
            )
        return begin + len(literal(self.tokenizer, given).lstrip())
