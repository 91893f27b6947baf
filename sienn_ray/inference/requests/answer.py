"""The answer to one request, from its arrival to its last delta; the same for every engine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sienn_ray.errors import EngineError, SiennError
from sienn_ray.inference.engine import FinishReason, GenerationDelta, GenerationRequest, GenerationResult, TokenLogprob
from sienn_ray.inference.requests.prompts import Prompt
from sienn_ray.inference.sampling.logprobs import Sampled
from sienn_ray.inference.text.text_stream import TextStream
from sienn_ray.inference.text.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# Tokens of the prompt that tell how one behind them is written; a character of one has at most four.
_NUM_BEHIND = 8


class Answer:
    """Turns a request's tokens into deltas for its listener, of which exactly one is the last.

    `cancel`, `at_end` and `fail` are for any thread, everything else for the engine's threads, one at a time.

    Args:
        request: What to generate.
        listener: Gets deltas.
    """

    def __init__(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> None:
        self.request = request
        self.arrived_at = time.monotonic()
        self._listener = listener
        self._is_cancelled = threading.Event()
        self._is_over = False
        self._ending = threading.Lock()
        self._releases: list[Callable[[], None]] = []
        self._started_at: float | None = None
        self._first_token_at: float | None = None
        self._num_cached_tokens = 0
        self._logprobs: list[TokenLogprob] = []

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        self._is_cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """True once the caller has cancelled the request."""
        return self._is_cancelled.is_set()

    @property
    def is_over(self) -> bool:
        """True once the last delta is out."""
        return self._is_over

    def at_end(self, release: Callable[[], None]) -> None:
        """Call `release` before the last delta, at once where that is out: it gives back what the request holds."""
        with self._ending:
            if not self._is_over:
                self._releases.append(release)
                return
        release()

    def read(self, prompt: Prompt, vocabulary: Vocabulary, *, adapter_cached: bool) -> None:
        """Set the prompt.

        Args:
            prompt: What the model reads.
            vocabulary: Of the base model's tokenizer.
            adapter_cached: Whether the adapter was loaded when the request came.
        """
        self.prompt = prompt
        #: Of the prompt and what was generated so far.
        self.tokens = list(prompt.input_ids)
        self._vocabulary = vocabulary
        self._adapter_cached = adapter_cached
        is_chat = not isinstance(self.request.prompt, str)
        stop = (*self.request.sampling.stop, *prompt.ends.strings)
        behind = prompt.input_ids[-_NUM_BEHIND:] if self.request.continues else ()
        self._text = TextStream(vocabulary, stop, strip=is_chat, behind=behind)

    def start(self, num_cached_tokens: int = 0) -> None:
        """Note that the request has left the queue.

        Args:
            num_cached_tokens: Prompt tokens that a prefix cache has.
        """
        self._started_at = time.monotonic()
        self._num_cached_tokens = num_cached_tokens

    @property
    def num_generated(self) -> int:
        """Number of generated tokens."""
        return len(self.tokens) - len(self.prompt.input_ids)

    def take(self, sampled: Sampled, eos: frozenset[int]) -> None:
        """Append a token; ends the answer at an end of sequence or of turn, a stop string or `max_new_tokens`.

        Args:
            sampled: The token.
            eos: Ids of tokens that end any answer; a chat template's marks do beside them.
        """
        if self._first_token_at is None:
            self._first_token_at = time.monotonic()
        self.tokens.append(sampled.token_id)
        if sampled.token_id in eos or sampled.token_id in self.prompt.ends.token_ids:
            self._finish("stop")
            return
        text = self._text.push(sampled.token_id)
        logprob = self._vocabulary.logprob(sampled)
        logprobs = () if logprob is None else (logprob,)
        self._logprobs += logprobs
        if self._text.matched_stop is not None:
            self._finish("stop", text, logprobs)
        elif self.num_generated >= self.prompt.max_new_tokens:
            self._finish("length", text, logprobs)
        elif text or logprobs:
            self._tell(GenerationDelta(text, logprobs, begins_in_reasoning=self.prompt.begins_in_reasoning))

    def drop(self) -> None:
        """End a cancelled request: with what it has come to, or an error if it never left the queue."""
        if self._started_at is None:
            self.fail(EngineError("the request was cancelled"))
        else:
            self._finish("cancelled")

    def fail(self, error: SiennError) -> None:
        """End with an error, unless the last delta is out."""
        self._end(GenerationDelta(error=error))

    def _finish(self, reason: FinishReason, text: str = "", logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        rest = text + ("" if self._text.matched_stop is not None else self._text.flush())
        now = time.monotonic()
        result = GenerationResult(
            text=self._text.text,
            rendered_prompt=self.prompt.text,
            num_prompt_tokens=len(self.prompt.input_ids),
            num_generated_tokens=self.num_generated,
            finish_reason=reason,
            adapter_cached=self._adapter_cached,
            generation_time_s=now - (self._started_at or now),
            time_to_first_token_s=None if self._first_token_at is None else self._first_token_at - self.arrived_at,
            logprobs=None if self.request.sampling.num_logprobs is None else tuple(self._logprobs),
            num_cached_tokens=self._num_cached_tokens,
            begins_in_reasoning=self.prompt.begins_in_reasoning,
        )
        self._end(GenerationDelta(rest, logprobs, result, begins_in_reasoning=result.begins_in_reasoning))

    def _end(self, last: GenerationDelta) -> None:
        with self._ending:  # a failure may come from several threads at once
            if self._is_over:
                return
            self._is_over = True
        for release in self._releases:
            release()
        self._tell(last)

    def _tell(self, delta: GenerationDelta) -> None:
        """Call the listener; one that is gone, as a closed event loop is, must not end the step of all others."""
        try:
            self._listener(delta)
        except Exception:
            logger.exception("a listener failed; its request is cancelled")
            self.cancel()
