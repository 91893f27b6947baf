"""One request on its way through an engine, from the queue to its last token."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sienn_ray.errors import EngineError, SiennError
from sienn_ray.inference.engine import FinishReason, GenerationDelta, GenerationRequest, GenerationResult, TokenLogprob
from sienn_ray.inference.kv_blocks import BlockTable
from sienn_ray.inference.logprobs import Sampled
from sienn_ray.inference.sampling import RowSampler
from sienn_ray.inference.text_stream import TextStream
from sienn_ray.inference.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """What a request reads.

    Args:
        text: As it was rendered.
        input_ids: Its tokens.
        identity: Content of the adapter that reads it, or the base model.
        adapter: Name of its weights, or None.
        adapter_cached: Whether the adapter was loaded already.
    """

    text: str
    input_ids: list[int]
    identity: str
    adapter: str | None
    adapter_cached: bool


class RunningGeneration:
    """A request with its state; everything but `cancel` belongs to the engine's threads.

    Args:
        request: What to generate.
        listener: Gets deltas.
        release: Is called once, when nothing more comes.
    """

    def __init__(
        self,
        request: GenerationRequest,
        listener: Callable[[GenerationDelta], None],
        release: Callable[[RunningGeneration], None],
    ) -> None:
        self.request = request
        self.arrived_at = time.monotonic()
        self.table: BlockTable | None = None
        self.num_computed = 0
        self.is_prepared = False
        self._listener = listener
        self._release = release
        self._is_cancelled = threading.Event()
        self._is_over = False
        self._over = threading.Lock()
        self._started_at: float | None = None
        self._first_token_at: float | None = None
        self._logprobs: list[TokenLogprob] = []

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        self._is_cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._is_cancelled.is_set()

    @property
    def is_over(self) -> bool:
        """Whether its last delta is out."""
        return self._is_over

    def prepare(self, prompt: Prompt, vocabulary: Vocabulary, vocab_size: int) -> None:
        """Set what it reads."""
        self.prompt = prompt
        self.tokens = list(prompt.input_ids)
        self.sampler = RowSampler(prompt.input_ids, self.request.sampling, vocab_size)
        self._vocabulary = vocabulary
        is_chat = not isinstance(self.request.prompt, str)
        self._text = TextStream(vocabulary, self.request.sampling.stop, strip=is_chat)
        self.is_prepared = True

    def start(self, table: BlockTable) -> None:
        """It has a place in the batch."""
        self.table = table
        self.num_computed = table.num_shared_tokens
        self._started_at = time.monotonic()
        self._num_cached_tokens = table.num_shared_tokens

    @property
    def num_max_tokens(self) -> int:
        """Tokens that it may come to."""
        return len(self.prompt.input_ids) + self.request.sampling.max_new_tokens

    @property
    def num_generated(self) -> int:
        """Tokens that were generated."""
        return len(self.tokens) - len(self.prompt.input_ids)

    def take(self, sampled: Sampled, eos: frozenset[int]) -> None:
        """Go on with a token; ends it where that is the last one."""
        if self._first_token_at is None:
            self._first_token_at = time.monotonic()
        self.tokens.append(sampled.token_id)
        if sampled.token_id in eos:
            self._finish("stop")
            return
        text = self._text.push(sampled.token_id)
        logprob = self._vocabulary.logprob(sampled)
        logprobs = () if logprob is None else (logprob,)
        self._logprobs += logprobs
        if self._text.matched_stop is not None:
            self._finish("stop", text, logprobs)
        elif self.num_generated >= self.request.sampling.max_new_tokens:
            self._finish("length", text, logprobs)
        elif text or logprobs:
            self._tell(GenerationDelta(text, logprobs))

    def drop(self) -> None:
        """End it because nobody waits for it."""
        if self._started_at is None:
            self.fail(EngineError("the request was cancelled"))
        else:
            self._finish("cancelled")

    def fail(self, error: SiennError) -> None:
        """End it with an error."""
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
            adapter_cached=self.prompt.adapter_cached,
            generation_time_s=now - (self._started_at or now),
            time_to_first_token_s=None if self._first_token_at is None else self._first_token_at - self.arrived_at,
            logprobs=None if self.request.sampling.num_logprobs is None else tuple(self._logprobs),
            num_cached_tokens=self._num_cached_tokens,
        )
        self._end(GenerationDelta(rest, logprobs, result))

    def _end(self, last: GenerationDelta) -> None:
        with self._over:  # a failure may come from several threads at once
            if self._is_over:
                return
            self._is_over = True
        self._release(self)
        self._tell(last)

    def _tell(self, delta: GenerationDelta) -> None:
        """A listener that is gone, as a closed event loop is, must not end the step of all others."""
        try:
            self._listener(delta)
        except Exception:
            logger.exception("a listener failed; its request is cancelled")
            self.cancel()
