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

from sienn_ray.datasets.answers import Answer, whole_answers
from sienn_ray.datasets.literal_text import kept_as_is
from sienn_ray.datasets.rendering import Rendering
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
    """A piece of a rendered row, as `literal_text` marks it; the loss counts only where the model has to produce it."""

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
            case RowKind.CONVERSATION | RowKind.PREFERENCE | RowKind.UNPAIRED_PREFERENCE:
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

    def prompt(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Return the text that the model has to continue, for messages that end with the user's or a tool's."""
        return self.render(tokenizer, messages, tools=tools, add_generation_prompt=True)

    def continuation(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Return the text that the model has to continue, for messages that end with the beginning of its answer.

        White space at its end stays, which the model goes on behind, also where the template drops it.

        Raises:
            InvalidDatasetError: The template refuses the conversation, or changes what it is given of the answer.
        """
        if self.kind is PromptKind.TEXT:
            return self.render(tokenizer, messages, tools=tools, add_generation_prompt=False)
        *before, last = messages
        content = str(last["content"])
        begun = content.rstrip()
        rendering = Rendering(tokenizer, self.chat_template, tools)
        answer = rendering.answer([*before, {**last, "content": begun, "prefix": begun}])
        return answer.prompt + answer.completion[: answer.num_given_chars] + content[len(begun) :]

    def render(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """A whole conversation as the model read it in training.

        Args:
            tokenizer: The tokenizer, for its special tokens.
            messages: The conversation, in OpenAI's form (see `stored_rows.StoredRow`).
            add_generation_prompt: Whether to ask for an answer behind it.
            tools: Tools that the model may call, in OpenAI's form.

        Raises:
            InvalidDatasetError: The template refuses the conversation, or leaves tools, their calls or results out.
        """
        match self.kind:
            case PromptKind.TEXT:
                if tools:
                    raise InvalidDatasetError("plain text has no place for tools; leave them out")
                return kept_as_is("\n\n".join(message["content"] for message in messages))
            case PromptKind.CHAT:
                return Rendering(tokenizer, self.chat_template, tools).text(
                    whole_answers(messages), add_generation_prompt=add_generation_prompt
                )
            case _:
                assert_never(self.kind)

    def examples(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[list[Segment]]:
        """A conversation as examples in pieces: every assistant message is a completion, with its end of turn.

        Those of weight 0 are none, and neither is the beginning of an answer that is marked as its prefix.

        Most templates render a turn the same however the conversation goes on, so one example has all answers. Others
        leave the reasoning out of earlier turns, or end the last one otherwise; there each answer is an example, behind
        all that went before it as the model is asked. They begin alike, which packing makes use of.

        Args:
            tokenizer: The tokenizer, for its special tokens.
            messages: The conversation, in OpenAI's form.
            tools: Tools that the model may call, in OpenAI's form.

        Raises:
            InvalidDatasetError: The template refuses the conversation, or leaves a part of it out.
        """
        rendering = Rendering(tokenizer, self.chat_template, tools)
        turns = whole_answers(messages)
        found: list[list[Segment]] = []
        done, num_checked = "", 0
        for index, message in enumerate(turns):
            if message["role"] != "assistant" or message.get("weight") == 0:
                continue
            answer = rendering.answer(turns[: index + 1], num_checked=num_checked)
            num_checked = index + 1
            if not found or not answer.prompt.startswith(done):
                found.append([])
                done = ""
            found[-1] += _pieces(answer, tokenizer, begin=len(done))
            done = answer.prompt + answer.completion
        return [_ending_with_eos(pieces, tokenizer) for pieces in found]

    def answer_segments(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Segment]:
        """A conversation in two pieces: all before its last message as the model is asked, and that message.

        Answers of earlier turns belong to the prompt, so a template may render them differently once the conversation
        goes on.

        Raises:
            InvalidDatasetError: The template refuses the conversation, or leaves a part of it out.
        """
        answer = Rendering(tokenizer, self.chat_template, tools).answer(whole_answers(messages))
        return _ending_with_eos(_pieces(answer, tokenizer), tokenizer)

    def text_segments(self, tokenizer: Any, text: str) -> list[Segment]:
        """A row of plain text, all of it to be produced."""
        return _ending_with_eos([Segment(kept_as_is(text), is_completion=True)], tokenizer)


def _pieces(answer: Answer, tokenizer: Any, begin: int = 0) -> list[Segment]:
    """Pieces of an answer and of its prompt, where that isn't there already up to its character `begin`."""
    given = answer.completion[: answer.num_given_chars]
    return [
        Segment(answer.prompt[begin:] + given, is_completion=False),
        *_completion(answer.completion[answer.num_given_chars :], tokenizer),
    ]


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
    if pieces and (eos := tokenizer.eos_token):
        text = pieces[-1].text.rstrip("\n")
        pieces = [*pieces[:-1], Segment(text if text.endswith(eos) else text + eos, is_completion=True)]
    return [piece for piece in pieces if piece.text]
