"""The exact text a model reads: one format for training and for generation, stored with the adapter.

A conversation is rendered with the base model's own chat template, or with a plain instruction template where the base
model has none. RenderOptions it piece by piece says which characters the model has to produce.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, assert_never

from sienn_ray.chat_templates import name_of
from sienn_ray.datasets.answers import Answer, whole_answers
from sienn_ray.datasets.end_marks import text_ends, without_end, without_end_marks
from sienn_ray.datasets.literal_text import kept_as_is, literal, literal_values
from sienn_ray.datasets.render_options import RenderOptions, TemplateVariables
from sienn_ray.datasets.rendering import Rendering
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import ArtifactError, InvalidDatasetError, InvalidInputError

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
        options: Variables of the template, and how special tokens in plain text are encoded.
    """

    kind: PromptKind
    chat_template: str | None = None
    options: RenderOptions = field(default_factory=RenderOptions)

    @classmethod
    def for_chat(cls, tokenizer: Any, options: RenderOptions | None = None) -> PromptFormat:
        """The base model's own chat template, or the plain one where it has none."""
        return cls(PromptKind.CHAT, tokenizer.chat_template or PLAIN_TEMPLATE, options or RenderOptions())

    @classmethod
    def for_rows(cls, kind: RowKind, tokenizer: Any, options: RenderOptions | None = None) -> PromptFormat:
        """Choose the format of a kind of rows.

        Raises:
            InvalidInputError: The chat template has no variable of a name that is set.
        """
        match kind:
            case RowKind.TEXT:
                chosen = cls.for_text(options)
            case RowKind.CONVERSATION | RowKind.PREFERENCE | RowKind.UNPAIRED_PREFERENCE:
                chosen = cls.for_chat(tokenizer, options)
            case _:
                assert_never(kind)
        chosen.options.variables.check_known(chosen.chat_template, name_of(tokenizer))
        return chosen

    @classmethod
    def for_text(cls, options: RenderOptions | None = None) -> PromptFormat:
        """Text as it is."""
        return cls(PromptKind.TEXT, options=options or RenderOptions())

    @property
    def bound_template(self) -> str | None:
        """The chat template with the values of its variables, for programs that know no `prompt_format.json`."""
        return None if self.chat_template is None else self.options.variables.bound_to(self.chat_template)

    def with_variables(self, values: Mapping[str, Any] | None) -> PromptFormat:
        """Return the format with other values over those of the template's variables.

        Raises:
            InvalidInputError: They can't be given to a template, or it has no variable of a name.
        """
        if not values:
            return self
        variables = self.options.variables.merged(values)
        TemplateVariables.of(values).check_known(self.chat_template)
        return replace(self, options=replace(self.options, variables=variables))

    def for_row(self, values: Mapping[str, Any] | None) -> PromptFormat:
        """Return the format with the values that a row of a dataset has for the template's variables.

        Raises:
            InvalidDatasetError: They can't be given to a template, or it has no variable of a name.
        """
        try:
            return self.with_variables(values)
        except InvalidInputError as error:
            raise InvalidDatasetError(error.message) from error

    def to_json(self) -> str:
        """Serialize to the content of `prompt_format.json`."""
        content = {
            "kind": self.kind,
            "chat_template": self.chat_template,
            "chat_template_kwargs": self.options.variables.values,
            "special_tokens": self.options.special_tokens,
        }
        return json.dumps(content, indent=2)

    @classmethod
    def from_json(cls, text: str) -> PromptFormat:
        """Parse the content of `prompt_format.json`.

        Raises:
            ArtifactError: It isn't one.
        """
        try:
            fields = json.loads(text)
            # Earlier adapters of plain text were trained with the tokens.
            kind, chat_template = PromptKind(fields["kind"]), fields["chat_template"]
            options = RenderOptions.of(fields.get("chat_template_kwargs", {}), fields.get("special_tokens", "tokens"))
            return cls(kind, chat_template, options)
        except (ValueError, KeyError, TypeError, InvalidInputError) as error:
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
        rendering = self._rendering(tokenizer, tools)
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
                return self.plain_text(tokenizer, "\n\n".join(message["content"] for message in messages))
            case PromptKind.CHAT:
                return self._rendering(tokenizer, tools).text(
                    self._turns(tokenizer, messages), add_generation_prompt=add_generation_prompt
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
        rendering = self._rendering(tokenizer, tools)
        turns = self._turns(tokenizer, messages)
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
        answer = self._rendering(tokenizer, tools).answer(self._turns(tokenizer, messages))
        return _ending_with_eos(_pieces(answer, tokenizer), tokenizer)

    def text_segments(self, tokenizer: Any, text: str) -> list[Segment]:
        """A row of plain text, all of it to be produced."""
        said = without_end(text, text_ends(tokenizer))
        return _ending_with_eos([Segment(self.plain_text(tokenizer, said), is_completion=True)], tokenizer)

    def plain_text(self, tokenizer: Any, text: str) -> str:
        """Text that is no conversation, in the form that is encoded."""
        return literal(tokenizer, text) if self.options.special_tokens == "text" else kept_as_is(text)

    def _rendering(self, tokenizer: Any, tools: Sequence[Mapping[str, Any]] | None) -> Rendering:
        # Special tokens in the values stay text, as in messages.
        variables = literal_values(tokenizer, self.options.variables.values)
        return Rendering(tokenizer, self.chat_template, tools, variables)

    def _turns(self, tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return without_end_marks(tokenizer, self.chat_template, whole_answers(messages))


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
