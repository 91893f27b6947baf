"""Prompts of requests: rendered, tokenized, and checked for their length, the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sienn_ray.datasets.literal_text import kept_as_is, plain
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.tokenization import encode
from sienn_ray.datasets.tool_form import reads_tools
from sienn_ray.errors import ContextLengthError, InvalidDatasetError, InvalidInputError, RefusedPromptError
from sienn_ray.inference.engine import ChatMessage, GenerationRequest, SamplingParams
from sienn_ray.inference.text.turn_ends import TurnEnds

# Adapters of one base model have its chat template; one that was changed since leaves a few.
_MAX_FORMATS = 64
_THINK, _END_OF_THINK = "<think>", "</think>"


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it.

    Args:
        text: The rendered text.
        input_ids: Token ids of the text, never none.
        ends: What ends the answer, beside the end of sequence.
        max_new_tokens: Tokens of the answer at the most.
        begins_in_reasoning: Whether it has opened a block of reasoning.
    """

    text: str
    input_ids: list[int]
    ends: TurnEnds
    max_new_tokens: int
    begins_in_reasoning: bool = False


def _is_within_reasoning(text: str, request: GenerationRequest) -> bool:
    """Return whether the prompt, or the text that is gone on with, has opened a block of reasoning."""
    if request.continues and not isinstance(request.prompt, str):
        text = request.prompt[-1].content
        return text.rfind(_THINK) > text.rfind(_END_OF_THINK)
    return text.rstrip().endswith(_THINK)


class PromptEncoder:
    """Renders and tokenizes prompts for one base model, in the format that training used.

    Args:
        base_model: Hub id, for messages.
        tokenizer: The base model's.
        context_tokens: Context length of the base model; None where its configuration names none.
        cache_tokens: Tokens that fit into the engine's KV cache; None is no limit.
    """

    def __init__(
        self, base_model: str, tokenizer: Any, *, context_tokens: int | None, cache_tokens: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._base_format = PromptFormat.for_chat(tokenizer)
        self._ends: dict[PromptFormat, TurnEnds] = {}
        limits = [
            (context_tokens, f"of {base_model}"),
            (cache_tokens, "that fit (SIENN_ENGINE_KV_CACHE_BYTES)"),
        ]
        known = [(limit, whose) for limit, whose in limits if limit is not None]
        self._limit = min(known, key=lambda each: each[0], default=None)

    def encode(self, request: GenerationRequest, prompt_format: PromptFormat | None = None) -> Prompt:
        """Render and tokenize a request's prompt; text that is no conversation goes to the model as it is.

        Args:
            request: The request.
            prompt_format: The adapter's; None is the base model's own chat format.

        Raises:
            InvalidInputError: The prompt is empty, or refused by the chat template, or that has no such variable.
            ContextLengthError: It is too long with its answer.
        """
        prompt_format = prompt_format or self._base_format
        ends = TurnEnds()
        if isinstance(request.prompt, str):
            text, kind = self._plain(request.prompt, prompt_format), PromptKind.TEXT
        else:
            ends = self._ends_of(prompt_format)
            prompt_format = prompt_format.with_variables(request.template_variables)
            text, kind = self._conversation(request, request.prompt, prompt_format), prompt_format.kind
        input_ids = encode(self._tokenizer, text, is_start=True, kind=kind)
        max_new_tokens = self._room(len(input_ids), request.sampling)
        written = plain(text)
        thinks = kind is PromptKind.CHAT and _is_within_reasoning(written, request)
        return Prompt(written, input_ids, ends, max_new_tokens, thinks)

    def _conversation(
        self, request: GenerationRequest, messages: Sequence[ChatMessage], prompt_format: PromptFormat
    ) -> str:
        """The text that the model has to go on from; what the template has no place for is named."""
        formed = [message.as_rows_have_it for message in messages]
        write = prompt_format.continuation if request.continues else prompt_format.prompt
        try:
            return write(self._tokenizer, formed, tools=request.tools or None)
        except InvalidDatasetError as error:
            has_no_tools = request.tools and not reads_tools(self._tokenizer, prompt_format.chat_template)
            raise RefusedPromptError(str(error), field="tools" if has_no_tools else "messages") from error

    def _plain(self, text: str, prompt_format: PromptFormat) -> str:
        """Text that goes to the model as it is; who renders conversations writes special tokens that are meant."""
        if prompt_format.kind is PromptKind.TEXT:
            return prompt_format.plain_text(self._tokenizer, text)
        return kept_as_is(text)

    def _ends_of(self, prompt_format: PromptFormat) -> TurnEnds:
        """Look a template's marks up, which takes some milliseconds the first time."""
        found = self._ends.get(prompt_format)
        if found is None:
            if len(self._ends) >= _MAX_FORMATS:
                self._ends.clear()
            found = self._ends[prompt_format] = TurnEnds.of(prompt_format, self._tokenizer)
        return found

    def _room(self, num_prompt_tokens: int, sampling: SamplingParams) -> int:
        """Tokens that the answer may have."""
        if num_prompt_tokens == 0:
            raise InvalidInputError("prompt has no tokens; write something to go on from")
        asked = sampling.max_new_tokens
        if self._limit is None or num_prompt_tokens + asked <= self._limit[0]:
            return asked
        limit, whose = self._limit
        room = limit - num_prompt_tokens
        if room <= 0:
            raise ContextLengthError(
                f"prompt has {num_prompt_tokens} tokens, and the {limit} tokens {whose} leave no room for an answer; "
                "shorten the prompt"
            )
        if sampling.fits_context:
            return room
        raise ContextLengthError(
            f"prompt has {num_prompt_tokens} tokens and max_new_tokens is {asked}; together they exceed the {limit} "
            f"tokens {whose}; shorten the prompt or lower max_new_tokens to {room}"
        )
