"""The exact text a model reads: one format for training and for generation, stored with the adapter.

A conversation is rendered with the base model's own chat template, or with a plain instruction template where the base
model has none. Rendering it piece by piece says which characters the model has to produce.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, assert_never

import jinja2

from sienn_ray.chat_templates import limited_rendering
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import ArtifactError, InvalidDatasetError

FILE_NAME = "prompt_format.json"

# For base models without a chat template, in the shape that instruction tuning made common (Taori et al. 2023, Alpaca).
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)


class PromptKind(StrEnum):
    """The kind of a prompt: a conversation, or text that goes to the model as it is."""

    CHAT = "chat"
    TEXT = "text"


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered row; the loss counts only where the model has to produce it."""

    text: str
    is_completion: bool


@dataclass(frozen=True)
class PromptFormat:
    """The format in which messages become text.

    Args:
        kind: Conversation or plain text.
        chat_template: Jinja template of a conversation; None for plain text.
    """

    kind: PromptKind
    chat_template: str | None = None

    @classmethod
    def for_chat(cls, tokenizer: Any) -> PromptFormat:
        """The base model's own chat template, or the plain one where it has none."""
        return cls(PromptKind.CHAT, tokenizer.chat_template or PLAIN_TEMPLATE)

    @classmethod
    def for_rows(cls, kind: RowKind, tokenizer: Any) -> PromptFormat:
        """Choose the format of a kind of rows."""
        match kind:
            case RowKind.TEXT:
                return cls.for_text()
            case RowKind.CONVERSATION | RowKind.PREFERENCE:
                return cls.for_chat(tokenizer)
            case _:
                assert_never(kind)

    @classmethod
    def for_text(cls) -> PromptFormat:
        """Text as it is."""
        return cls(PromptKind.TEXT)

    def to_json(self) -> str:
        """Serialize to the content of `prompt_format.json`."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> PromptFormat:
        """Parse the content of `prompt_format.json`.

        Raises:
            ArtifactError: It isn't one.
        """
        try:
            fields = json.loads(text)
            return cls(PromptKind(fields["kind"]), fields["chat_template"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{FILE_NAME} can't be read: {error}") from error

    def prompt(self, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the text that the model has to continue, for messages that end with the user's."""
        return self.render(tokenizer, messages, add_generation_prompt=True)

    def render(self, tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """A whole conversation as the model read it in training.

        Args:
            tokenizer: The tokenizer, for its special tokens.
            messages: The conversation.
            add_generation_prompt: Whether to ask for an answer behind it.
        """
        match self.kind:
            case PromptKind.TEXT:
                return "\n\n".join(message["content"] for message in messages)
            case PromptKind.CHAT:
                return self._render(tokenizer, messages, add_generation_prompt=add_generation_prompt)
            case _:
                assert_never(self.kind)

    def segments(self, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[Segment]:
        """A whole conversation in pieces: every assistant message is a completion, up to and with its end of turn.

        Raises:
            InvalidDatasetError: The template doesn't render earlier turns the same when later ones follow, so that
                prompt and completion can't be told apart.
        """
        pieces: list[Segment] = []
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt, full = self._before_and_with(tokenizer, messages[: index + 1])
            if not (prompt.startswith(done) and full.startswith(prompt)):
                raise InvalidDatasetError(
                    "the base model's chat template renders a conversation differently once it goes on, so completions "
                    "can't be told from prompts; use rows with a single answer"
                )
            pieces += [Segment(prompt[len(done) :], is_completion=False), *_completion(full[len(prompt) :], tokenizer)]
            done = full
        return _ending_with_eos(pieces, tokenizer)

    def answer_segments(self, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[Segment]:
        """A conversation in two pieces: all before its last message as the model is asked, and that message.

        Answers of earlier turns belong to the prompt, so a template may render them differently once the conversation
        goes on.

        Raises:
            InvalidDatasetError: The template doesn't begin an answer as it asks for one, so that prompt and completion
                can't be told apart.
        """
        prompt, full = self._before_and_with(tokenizer, messages)
        if not full.startswith(prompt):
            raise InvalidDatasetError(
                "the base model's chat template renders a prompt differently once it is answered, so the answer can't "
                "be told from the prompt; use another base model"
            )
        pieces = [Segment(prompt, is_completion=False), *_completion(full[len(prompt) :], tokenizer)]
        return _ending_with_eos(pieces, tokenizer)

    def text_segments(self, tokenizer: Any, text: str) -> list[Segment]:
        """A row of plain text, all of it to be produced."""
        return _ending_with_eos([Segment(text, is_completion=True)], tokenizer)

    def _before_and_with(self, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
        """The text that asks for the last message, and the text that has it."""
        return (
            self._render(tokenizer, messages[:-1], add_generation_prompt=True),
            self._render(tokenizer, messages, add_generation_prompt=False),
        )

    def _render(self, tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        try:
            with limited_rendering(tokenizer):
                rendered = tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    chat_template=self.chat_template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
        except jinja2.TemplateError as error:
            raise InvalidDatasetError(f"the base model's chat template refuses a conversation: {error}") from error
        return str(rendered)


def _completion(text: str, tokenizer: Any) -> list[Segment]:
    """Split what follows the end of turn (a newline, in most templates) from what the model has to produce."""
    eos = tokenizer.eos_token
    if not eos or eos not in text:
        return [Segment(text, is_completion=True)]
    end = text.rindex(eos) + len(eos)
    return [Segment(text[:end], is_completion=True), Segment(text[end:], is_completion=False)]


def _ending_with_eos(pieces: list[Segment], tokenizer: Any) -> list[Segment]:
    """Drop what follows the last completion, and have that end with EOS, so that ending is learned."""
    while pieces and not pieces[-1].is_completion:
        pieces = pieces[:-1]
    if pieces and tokenizer.eos_token and not pieces[-1].text.endswith(tokenizer.eos_token):
        pieces = [*pieces[:-1], Segment(pieces[-1].text.rstrip("\n") + tokenizer.eos_token, is_completion=True)]
    return [piece for piece in pieces if piece.text]
