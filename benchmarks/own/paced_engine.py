"""An engine that makes tokens at a given rate without computing, for what a service costs beside any engine.

It is `Engine` with everything that all engines share (prompts in threads, the bounded queue, texts from tokens); in
place of a model it has a clock, which gives each open request a token so many times a second. `benchmarks/own/paced`
has a service take it for the built-in one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial

from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.inference.engine import Generation, GenerationDelta, GenerationRequest
from sienn_ray.inference.requests.adapter_files import AdapterFiles
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.open_requests import OpenRequests
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.requests.request_preparation import LoadedAdapter, RequestPreparation
from sienn_ray.inference.sampling.logprobs import Sampled
from sienn_ray.inference.text.vocabulary import Vocabulary
from sienn_ray.settings import Settings

RATE_ENVIRONMENT = "SIENN_BENCH_TOKENS_PER_S"
_CONTEXT_TOKENS = 4096
_LOOK_S = 0.05
# Words of the answers, and what each request begins with of them.
_TEXT = "A heron stood in the shallow water while the morning light moved over the reeds and the hills beyond. " * 4


class _NoWeights:
    size_bytes = 1


class PacedEngine:
    """`Engine` whose requests have a token each, so many times a second.

    Args:
        base_model: Hub id; its tokenizer reads prompts and gives the answers' tokens.
        settings: Limits.
        revision: The base model's commit.
        tokens_per_s: Of one request; by default what the environment says.
    """

    def __init__(
        self, base_model: str, settings: Settings, revision: str | None = None, tokens_per_s: float | None = None
    ) -> None:
        tokenizer = load_tokenizer(local_folder(base_model, settings, revision))
        self._words: list[int] = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
        self._step_s = 1.0 / (tokens_per_s or float(os.environ[RATE_ENVIRONMENT]))
        self._max_batch = settings.engine_max_batch
        prompts = PromptEncoder(base_model, tokenizer, context_tokens=_CONTEXT_TOKENS, cache_tokens=1 << 30)
        self._preparation: RequestPreparation[_NoWeights] = RequestPreparation(
            settings, prompts, Vocabulary(tokenizer), _no_weights, _forget
        )
        self._requests = OpenRequests(base_model, settings.engine_max_queue)
        self._waiting: list[Answer] = []
        self._running: list[Answer] = []
        self._thread = threading.Thread(target=self._run, name="paced-engine", daemon=True)
        self._thread.start()

    num_cpus = None
    stuck_s = 0.0

    @property
    def num_adapters(self) -> int:
        """See `Engine.num_adapters`."""
        return self._preparation.num_adapters

    @property
    def failure(self) -> str | None:
        """See `Engine.failure`."""
        return self._requests.failure

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        """See `Engine.submit`."""
        answer = Answer(request, listener)
        self._requests.add(answer, len(self._running))
        self._preparation.submit(answer, partial(self._ready, answer))
        return answer

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """See `Engine.load_adapter`."""
        self._preparation.load_adapter(adapter_id, adapter_key)

    def kill(self) -> None:
        """See `Engine.kill`; it has no process of its own."""

    def close(self) -> None:
        """See `Engine.close`."""
        self._requests.close()
        self._thread.join()
        self._requests.fail_all()
        self._preparation.close()

    def _ready(self, answer: Answer, adapter: LoadedAdapter[_NoWeights] | None) -> None:  # noqa: ARG002
        self._waiting.append(answer)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._requests.is_closed:
            while self._waiting and len(self._running) < self._max_batch:
                self._running.append(self._waiting.pop(0))
                self._running[-1].start()
            for answer in self._running:
                if answer.is_cancelled:
                    answer.drop()
                else:
                    answer.take(Sampled(self._words[answer.num_generated % len(self._words)]), frozenset())
            self._running = [answer for answer in self._running if not answer.is_over]
            # A step that came late isn't made up for, as one of a model isn't.
            due = max(due + self._step_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()) if self._running else _LOOK_S)


def _no_weights(files: AdapterFiles) -> _NoWeights:  # noqa: ARG001
    return _NoWeights()


def _forget(weights: _NoWeights) -> None:
    pass
