"""Answers of /v1/completions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sienn_ray.api.openai_output import Heading, finish_reason, finite
from sienn_ray.api.schemas.completions import Completion, CompletionChoice, CompletionLogprobs
from sienn_ray.inference.engine import GenerationDelta, GenerationResult, TokenLogprob


def completion(heading: Heading, results: Sequence[GenerationResult]) -> Completion:
    """The answers as a whole."""
    choices = [_choice(number, result) for number, result in enumerate(results)]
    return Completion(**heading.fields, choices=choices, usage=heading.usage(results))


def _choice(number: int, result: GenerationResult) -> CompletionChoice:
    return CompletionChoice(
        index=number,
        text=result.text,
        logprobs=None if result.logprobs is None else _logprobs(result.logprobs, 0),
        finish_reason=finish_reason(result),
    )


class CompletionChunks:
    """The chunks of one stream.

    Args:
        heading: What each of them begins with.
        with_usage: Whether a last one has the usage.
    """

    def __init__(self, heading: Heading, *, with_usage: bool) -> None:
        self._heading = heading
        self._with_usage = with_usage
        self._num_chars: defaultdict[int, int] = defaultdict(int)

    def of(self, number: int, delta: GenerationDelta) -> Iterator[Completion]:
        """What a piece of an answer becomes."""
        if not (delta.text or delta.logprobs or delta.result):
            return
        choice = CompletionChoice(
            index=number,
            text=delta.text,
            logprobs=_logprobs(delta.logprobs, self._num_chars[number]) if delta.logprobs else None,
            finish_reason=None if delta.result is None else finish_reason(delta.result),
        )
        self._num_chars[number] += sum(len(token.token) for token in delta.logprobs)
        yield self._with([choice], **({"usage": None} if self._with_usage else {}))

    def last(self, results: Sequence[GenerationResult]) -> Completion | None:
        """The chunk behind all others, if there is one."""
        return self._with([], usage=self._heading.usage(results)) if self._with_usage else None

    def _with(self, choices: list[CompletionChoice], **usage: Any) -> Completion:
        return Completion(**self._heading.fields, object="text_completion", choices=choices, **usage)


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> CompletionLogprobs:
    """Log-probabilities of tokens, the first of which begins at an offset."""
    offsets = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each.token)
    return CompletionLogprobs(
        tokens=[each.token for each in tokens],
        token_logprobs=[finite(each.logprob) for each in tokens],
        top_logprobs=[{top.token: finite(top.logprob) for top in each.top} for each in tokens],
        text_offset=offsets,
    )
