"""Threads that get requests ready before an engine computes: adapters are loaded, prompts tokenized."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from sienn_ray.compute_threads import compute_alone
from sienn_ray.errors import EngineError, OutOfReachError, SiennError
from sienn_ray.inference.requests.adapter_cache import AdapterCache, Sized
from sienn_ray.inference.requests.adapter_files import AdapterFiles, errors_naming, fetch_adapter
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.text.vocabulary import Vocabulary
from sienn_ray.local_copies import LocalCopies
from sienn_ray.retries import is_out_of_reach
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

_TOKENIZING_THREADS = 2
# Adapters whose weights are read at a time, beside the thread that computes; fetching them isn't counted.
_NUM_READING = 2

_Weights = TypeVar("_Weights", bound=Sized)


@dataclass(frozen=True)
class LoadedAdapter(Generic[_Weights]):
    """An adapter in memory.

    Args:
        files: The files that it was read from.
        weights: What the engine made of them.
    """

    files: AdapterFiles
    weights: _Weights

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return self.weights.size_bytes


class RequestPreparation(Generic[_Weights]):
    """Loads the adapter of each request, or finds it in the cache, and encodes the prompt.

    An answer holds its adapter, which is never evicted meanwhile, until its last delta.

    Args:
        settings: Storage, limits of the adapter cache.
        prompts: Encodes prompts.
        vocabulary: Of the base model's tokenizer.
        read_weights: Makes of an adapter's files what the engine computes with; raises a `SiennError` where it can't.
        unload: Gets the weights of each adapter that is evicted, or that was loaded and got no place.
    """

    def __init__(
        self,
        settings: Settings,
        prompts: PromptEncoder,
        vocabulary: Vocabulary,
        read_weights: Callable[[AdapterFiles], _Weights],
        unload: Callable[[_Weights], None],
    ) -> None:
        self._storage = Storage(settings.storage_url)
        self._copies = LocalCopies(settings.adapters_dir, settings.adapter_copies_max_bytes)
        self._prompts = prompts
        self._vocabulary = vocabulary
        self._read_weights = read_weights
        self._cache: AdapterCache[LoadedAdapter[_Weights]] = AdapterCache(
            self._load,
            lambda adapter: unload(adapter.weights),
            max_count=settings.adapter_cache_max_count,
            max_bytes=settings.adapter_cache_max_bytes,
            load_timeout_s=settings.adapter_load_timeout_s,
            room_timeout_s=settings.engine_queue_timeout_s,
        )
        self._reading = threading.Semaphore(_NUM_READING)
        # As many as may wait for an adapter, so that none waits behind those of an adapter that doesn't come.
        self._waiting = ThreadPoolExecutor(settings.engine_max_queue, "wait-for-adapter", compute_alone)
        self._tokenizing = ThreadPoolExecutor(_TOKENIZING_THREADS, "tokenize", compute_alone)

    @property
    def num_adapters(self) -> int:
        """Adapters in memory."""
        return len(self._cache)

    @property
    def num_adapter_loads(self) -> int:
        """Adapters loaded since the start; a cache hit doesn't count."""
        return self._cache.num_loads

    def submit(self, answer: Answer, ready: Callable[[LoadedAdapter[_Weights] | None], None]) -> None:
        """Queue a request and return at once.

        Args:
            answer: Of the request; fails if its adapter or its prompt can't be used.
            ready: Gets the adapter, in a thread of this object, once `answer` has read its prompt.
        """
        with suppress(RuntimeError):  # this is closed, so the answer is over
            self._tokenizing.submit(self._prepare, answer, ready)

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """See `Engine.load_adapter`."""
        self._cache.take(adapter_id, adapter_key)
        self._cache.give_back(adapter_id)

    def close(self) -> None:
        """End all threads but those that wait for storage, which end with the process."""
        self._cache.close()
        self._waiting.shutdown(cancel_futures=True)
        self._tokenizing.shutdown(cancel_futures=True)

    def _prepare(self, answer: Answer, ready: Callable[[LoadedAdapter[_Weights] | None], None]) -> None:
        """Tokenize if the adapter is loaded; else hand the request to the threads that wait for adapters."""
        adapter_id = answer.request.adapter_id
        adapter = None if adapter_id is None else self._cache.take_loaded(adapter_id)
        if adapter_id is not None and adapter is None:
            with suppress(RuntimeError):  # this is closed, so the answer is over
                self._waiting.submit(self._guarded, answer, lambda: self._await_adapter(answer, adapter_id, ready))
            return
        if adapter_id is not None:
            answer.at_end(partial(self._cache.give_back, adapter_id))
        self._guarded(answer, lambda: self._encode(answer, adapter, ready, is_cached=True))

    def _await_adapter(
        self, answer: Answer, adapter_id: str, ready: Callable[[LoadedAdapter[_Weights] | None], None]
    ) -> None:
        adapter = self._cache.take(
            adapter_id,
            answer.request.adapter_key or "",
            is_wanted=lambda: not (answer.is_over or answer.is_cancelled),
        )
        answer.at_end(partial(self._cache.give_back, adapter_id))
        # The adapter wasn't there at first; a request that waits for another's load waits as well.
        encode = partial(self._encode, answer, adapter, ready, is_cached=False)
        with suppress(RuntimeError):  # this is closed, so the answer is over
            self._tokenizing.submit(self._guarded, answer, encode)

    def _guarded(self, answer: Answer, prepare: Callable[[], None]) -> None:
        try:
            if answer.is_cancelled:
                answer.drop()
            elif not answer.is_over:
                prepare()
        except SiennError as error:
            answer.fail(error)
        except Exception as error:
            if is_out_of_reach(error):
                answer.fail(OutOfReachError.of("storage", error))
                return
            logger.exception("a request couldn't be prepared")
            answer.fail(EngineError(f"the request couldn't be prepared: {type(error).__name__}: {error}"))

    def _encode(
        self,
        answer: Answer,
        adapter: LoadedAdapter[_Weights] | None,
        ready: Callable[[LoadedAdapter[_Weights] | None], None],
        *,
        is_cached: bool,
    ) -> None:
        prompt = self._prompts.encode(answer.request, None if adapter is None else adapter.files.prompt_format)
        answer.read(prompt, self._vocabulary, adapter_cached=is_cached)
        ready(adapter)

    def _load(self, adapter_key: str) -> LoadedAdapter[_Weights]:
        compute_alone()
        files = fetch_adapter(self._storage, adapter_key, self._copies)
        with self._reading, errors_naming(adapter_key):
            weights = self._read_weights(files)
        logger.info("loaded %s as %s", adapter_key, files.content_hash)
        return LoadedAdapter(files, weights)
