"""Answers of /v1/completions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sienn_ray.api.answers.openai_output import OpenAiOutput, ResponseHead, finish_reason, finite
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from sienn_ray.inference.engine import GenerationDelta, GenerationResult, TokenLogprob


class CompletionOutput(OpenAiOutput):
    """The answers to one or several texts."""

    def __init__(self, head: ResponseHead, body: CompletionRequest) -> None:
        super().__init__(head, with_usage=bool(body.stream_options.include_usage))
        self._num_chars: defaultdict[int, int] = defaultdict(int)

    def whole(self, results: Sequence[GenerationResult]) -> Completion:
        """See `OpenAiOutput.whole`."""
        choices = [_choice(number, result) for number, result in enumerate(results)]
        return Completion(**self._head.fields, choices=choices, usage=self._head.usage(results))

    def chunks(self, number: int, delta: GenerationDelta) -> Iterator[ResponseBody]:
        """See `OpenAiOutput.chunks`."""
        if not (delta.text or delta.logprobs or delta.result):
            return
        choice = CompletionChoice(
            index=number,
            text=delta.text,
            logprobs=_logprobs(delta.logprobs, self._num_chars[number]) if delta.logprobs else None,
            finish_reason=None if delta.result is None else finish_reason(delta.result),
        )
        self._num_chars[number] += sum(len(token.token) for token in delta.logprobs)
        yield self._chunk_of(choice)

    def _chunk(self, choices: list[CompletionChoice], **usage: Any) -> Completion:
        return Completion(**self._head.fields, object="text_completion", choices=choices, **usage)


def _choice(number: int, result: GenerationResult) -> CompletionChoice:
    return CompletionChoice(
        index=number,
        text=result.text,
        logprobs=None if result.logprobs is None else _logprobs(result.logprobs, 0),
        finish_reason=finish_reason(result),
    )


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
