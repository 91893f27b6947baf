"""The engine: one base model, any of its adapters in any row of the batch, requests that come and go at every step."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sienn_ray.base_model import load_causal_lm, load_tokenizer, local_folder
from sienn_ray.compute_threads import ComputeThread, SpinControl, compute_alone, observe, usable_cpus
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.tokenization import encode
from sienn_ray.errors import ArtifactError, CapacityError, EngineError, InvalidInputError, QueueFullError, SiennError
from sienn_ray.inference.adapter_cache import AdapterCache
from sienn_ray.inference.batch import plan
from sienn_ray.inference.engine import Generation, GenerationDelta, GenerationRequest
from sienn_ray.inference.generation import Prompt, RunningGeneration
from sienn_ray.inference.kv_blocks import BlockPool
from sienn_ray.inference.linear_choice import LinearChoices
from sienn_ray.inference.lora_weights import LoraWeights, read_lora
from sienn_ray.inference.model_runner import ModelRunner, PackingError
from sienn_ray.inference.request_queue import FairQueue
from sienn_ray.inference.sampling import eos_token_ids, sample
from sienn_ray.inference.vocabulary import Vocabulary
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

BLOCK_TOKENS = 32
_LOADING_THREADS = 2
_TOKENIZING_THREADS = 2
_IDLE_S = 0.5


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter in memory.

    Args:
        name: Of this load of it.
        content: Hash of its files, the same for each load.
        weights: What it adds to the base model.
        prompt_format: What it was trained on.
    """

    name: str
    content: str
    weights: LoraWeights
    prompt_format: PromptFormat

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return self.weights.size_bytes


class BatchingEngine:
    """`Engine` on transformers, with continuous batching over all adapters of one base model.

    Args:
        base_model: Hub id.
        settings: Storage, limits, threads.
    """

    def __init__(self, base_model: str, settings: Settings) -> None:
        self.base_model = base_model
        self._settings = settings
        self._storage = Storage(settings.storage_url)
        folder = local_folder(base_model, settings)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = load_tokenizer(folder)
        # It loads the model as well: a second thread with OpenMP workers would have all of them sleep between products.
        self._thread = ComputeThread("engine", int(settings.engine_num_cpus) or usable_cpus())
        try:
            model, self._runner = self._thread.run(lambda: _loaded(folder, self._device, settings))
        except BaseException:
            self._thread.end()
            raise
        self._context_tokens = getattr(model.config, "max_position_embeddings", None)
        self._vocab_size = model.get_input_embeddings().num_embeddings
        generation_eos = model.generation_config.eos_token_id if model.generation_config else None
        self._eos = frozenset(eos_token_ids(generation_eos, self._tokenizer.eos_token_id))
        self._vocabulary = Vocabulary(self._tokenizer)
        self._base_format = PromptFormat.for_chat(self._tokenizer)
        self._layers = self._runner.lora.layers
        self._pool = BlockPool(self._runner.num_blocks, BLOCK_TOKENS)
        self._unloaded: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._cache = AdapterCache(
            self._load,
            lambda adapter: self._unloaded.put(adapter.name),
            max_count=settings.adapter_cache_max_count,
            max_bytes=settings.adapter_cache_max_bytes,
        )
        self._load_numbers = itertools.count()
        self._weights: dict[str, LoraWeights] = {}
        self._prepared: queue.SimpleQueue[RunningGeneration | None] = queue.SimpleQueue()
        self._waiting: FairQueue[RunningGeneration] = FairQueue()
        self._running: list[RunningGeneration] = []
        self._open: set[RunningGeneration] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self._step_began_at: float | None = None
        self._loading = ThreadPoolExecutor(_LOADING_THREADS, "load-adapter", compute_alone)
        self._tokenizing = ThreadPoolExecutor(_TOKENIZING_THREADS, "tokenize", compute_alone)
        #: How the thread that computes does so.
        self.compute_setup = self._thread.run(observe)
        logger.info("the engine of %s computes with %s", base_model, self.compute_setup)
        self._thread.start(self._run)

    @property
    def num_cpus(self) -> int | None:
        """CPUs that it computes with; None on a GPU."""
        return self.compute_setup.num_threads if self._device.type == "cpu" else None

    @property
    def num_adapters(self) -> int:
        """Adapters in memory."""
        return len(self._cache)

    @property
    def num_adapter_loads(self) -> int:
        """Adapters loaded since the start; a cache hit doesn't count."""
        return self._cache.num_loads

    @property
    def stuck_s(self) -> float:
        """See `Engine.stuck_s`."""
        began_at = self._step_began_at
        return 0.0 if began_at is None else time.monotonic() - began_at

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        """See `Engine.submit`."""
        generation = RunningGeneration(request, listener, self._release)
        with self._lock:
            if self._is_closed:
                raise CapacityError(f"the engine of {self.base_model} is stopping; try again in a moment")
            limit = self._settings.engine_max_queue
            if len(self._open) - len(self._running) >= limit:
                raise QueueFullError.of(self.base_model, limit)
            self._open.add(generation)
        self._tokenizing.submit(self._prepare, generation)
        return generation

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """See `Engine.load_adapter`."""
        self._cache.take(adapter_id, adapter_key)
        self._cache.give_back(adapter_id)

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            self._is_closed = True
        self._prepared.put(None)
        self._thread.end()
        # Before the threads that load, one of which may wait for an adapter that these hold.
        for generation in list(self._open):
            generation.fail(CapacityError(f"the engine of {self.base_model} has stopped; try again in a moment"))
        self._loading.shutdown(cancel_futures=True)
        self._tokenizing.shutdown(cancel_futures=True)

    def _release(self, generation: RunningGeneration) -> None:
        """A generation is over: give back what it holds."""
        with self._lock:
            self._open.discard(generation)
        if generation.is_prepared and generation.request.adapter_id is not None:
            self._cache.give_back(generation.request.adapter_id)

    # Threads that prepare requests.

    def _prepare(self, generation: RunningGeneration) -> None:
        """Get the adapter, if it is loaded, and tokenize; else hand it to those who load."""
        adapter_id = generation.request.adapter_id
        if adapter_id is None:
            self._guarded(generation, lambda: self._tokenize(generation, None, is_cached=True))
            return
        adapter = self._cache.take_loaded(adapter_id)
        if adapter is None:
            self._loading.submit(self._guarded, generation, lambda: self._load_and_tokenize(generation))
        else:
            self._guarded(generation, lambda: self._tokenize(generation, adapter, is_cached=True))

    def _load_and_tokenize(self, generation: RunningGeneration) -> None:
        request = generation.request
        assert request.adapter_id is not None  # noqa: S101
        adapter = self._cache.take(request.adapter_id, request.adapter_key or "")
        # It wasn't there at first; whoever waits for another's load waits as well.
        self._tokenize(generation, adapter, is_cached=False)

    def _guarded(self, generation: RunningGeneration, prepare: Callable[[], None]) -> None:
        try:
            if not generation.is_over:
                prepare()
        except SiennError as error:
            generation.fail(error)
        except Exception as error:
            logger.exception("a request couldn't be prepared")
            generation.fail(EngineError(f"the request couldn't be prepared: {type(error).__name__}: {error}"))

    def _tokenize(self, generation: RunningGeneration, adapter: LoadedAdapter | None, *, is_cached: bool) -> None:
        try:
            prompt = self._prompt(generation.request, adapter, is_cached=is_cached)
            generation.prepare(prompt, self._vocabulary, self._vocab_size)
        except BaseException:
            if generation.request.adapter_id is not None:
                self._cache.give_back(generation.request.adapter_id)
            raise
        if adapter is not None:
            self._weights[adapter.name] = adapter.weights
        self._prepared.put(generation)

    def _prompt(self, request: GenerationRequest, adapter: LoadedAdapter | None, *, is_cached: bool) -> Prompt:
        prompt_format = self._base_format if adapter is None else adapter.prompt_format
        if isinstance(request.prompt, str):
            text, kind = request.prompt, PromptFormat.for_text().kind
        else:
            messages = [{"role": message.role, "content": message.content} for message in request.prompt]
            text, kind = prompt_format.prompt(self._tokenizer, messages), prompt_format.kind
        input_ids = encode(self._tokenizer, text, is_start=True, kind=kind)
        self._check_length(len(input_ids), request.sampling.max_new_tokens)
        name = None if adapter is None else adapter.name
        identity = self.base_model if adapter is None else adapter.content
        return Prompt(text, input_ids, identity, name, is_cached)

    def _check_length(self, num_prompt_tokens: int, max_new_tokens: int) -> None:
        if num_prompt_tokens == 0:
            raise InvalidInputError("prompt has no tokens; write something to go on from")
        cached = self._pool.num_blocks * BLOCK_TOKENS
        limit = min(self._context_tokens or cached, cached)
        if num_prompt_tokens + max_new_tokens > limit:
            why = f"of {self.base_model}" if limit == self._context_tokens else "that fit (SIENN_ENGINE_KV_CACHE_BYTES)"
            raise InvalidInputError(
                f"prompt has {num_prompt_tokens} tokens and max_new_tokens is {max_new_tokens}; together they exceed "
                f"the {limit} tokens {why}; shorten the prompt or lower max_new_tokens"
            )

    def _load(self, adapter_key: str) -> LoadedAdapter:
        folder = self._storage.fetch(adapter_key, self._settings.adapters_dir)
        try:
            weights = read_lora(folder, self.base_model, self._layers, self._runner.dtype)
            prompt_format = PromptFormat.from_json((folder / PROMPT_FORMAT_FILE).read_text())
        except OSError as error:
            raise ArtifactError(f"{adapter_key} has no {PROMPT_FORMAT_FILE}: {error}") from error
        except SiennError as error:
            raise type(error)(f"{adapter_key}: {error.message}") from error
        logger.info("loaded %s as %s", adapter_key, folder.name)
        return LoadedAdapter(f"{folder.name}-{next(self._load_numbers)}", folder.name, weights, prompt_format)

    # The thread that computes.

    def _run(self) -> None:
        spin = SpinControl()
        try:
            self._run_until_closed(spin)
        except Exception:
            logger.critical("the engine of %s has ended", self.base_model, exc_info=True)  # nobody waits for this call
            raise
        finally:
            spin.end()

    def _run_until_closed(self, spin: SpinControl) -> None:
        while not self._is_closed:
            self._take_prepared(is_idle=not self._running and not len(self._waiting))
            self._drop_those_nobody_waits_for()
            self._admit()
            if self._running:
                self._step()
                spin.look()

    def _take_prepared(self, *, is_idle: bool) -> None:
        with suppress(queue.Empty):
            while True:
                generation = self._prepared.get(block=is_idle, timeout=_IDLE_S)
                is_idle = False
                if generation is not None:
                    self._waiting.put(generation.request.adapter_id, generation)

    def _drop_those_nobody_waits_for(self) -> None:
        latest = time.monotonic() - self._settings.engine_queue_timeout_s
        for generation in self._waiting.remove_if(lambda each: each.is_cancelled or each.arrived_at < latest):
            if generation.is_cancelled:
                generation.drop()
            else:
                generation.fail(
                    CapacityError(
                        f"no place within {self._settings.engine_queue_timeout_s:g} s (SIENN_ENGINE_QUEUE_TIMEOUT_S); "
                        "try again later"
                    )
                )
        for generation in [each for each in self._running if each.is_cancelled]:
            generation.drop()
        self._leave()

    def _admit(self) -> None:
        while len(self._running) < self._settings.engine_max_batch:
            generation = self._waiting.peek()
            if generation is None:
                return
            prompt = generation.prompt
            table = self._pool.take(prompt.identity, prompt.input_ids, generation.num_max_tokens)
            if table is None:  # others have to leave first; whoever comes behind waits as well, or it might never fit
                return
            generation.start(table)
            self._running.append(self._waiting.pop())

    def _step(self) -> None:
        self._step_began_at = time.monotonic()
        try:
            self._compute()
        except Exception as error:
            logger.exception("a step failed")
            for generation in self._running:
                generation.fail(EngineError(f"the engine failed: {type(error).__name__}: {error}"))
        finally:
            self._step_began_at = None
        self._leave()

    def _compute(self) -> None:
        while not self._unloaded.empty():
            name = self._unloaded.get()
            self._runner.lora.forget(name)
            self._weights.pop(name, None)
        rows = plan(self._running, self._settings.engine_step_tokens)
        logits = self._runner.step([row for _, row in rows], self._weights)
        for generation, row in rows:
            generation.num_computed += row.num_new
        speaking = [generation for generation, row in rows if row.wants_logits]
        if not speaking:
            return
        is_broken = logits.sum(dim=1).isnan().tolist()  # before sampling, which changes them
        tokens = sample(logits, [each.sampler for each in speaking])
        for generation, token, is_nan in zip(speaking, tokens, is_broken, strict=True):
            if is_nan:
                generation.fail(EngineError("the model's scores aren't numbers; the adapter may have diverged"))
                continue
            if generation.num_generated == 0 and generation.table is not None:
                self._pool.note(generation.table, generation.tokens)
            generation.take(token, self._eos)

    def _leave(self) -> None:
        """Take those that are over out of the batch."""
        for generation in [each for each in self._running if each.is_over]:
            self._running.remove(generation)
            if generation.table is not None:
                self._pool.note(generation.table, generation.tokens[: generation.num_computed])
                self._pool.give_back(generation.table)
                generation.table = None


def _loaded(folder: Path, device: torch.device, settings: Settings) -> tuple[PreTrainedModel, ModelRunner]:
    """The base model, and what computes with it."""
    model = load_causal_lm(folder, device)
    choices = LinearChoices(settings.home / "cache" / "linear-layers.json")
    try:
        return model, ModelRunner(model, settings.engine_kv_cache_bytes, BLOCK_TOKENS, choices)
    except PackingError:
        logger.warning("%s can't have packed weights and will be slower", type(model).__name__)
    model = load_causal_lm(folder, device)
    return model, ModelRunner(model, settings.engine_kv_cache_bytes, BLOCK_TOKENS)
