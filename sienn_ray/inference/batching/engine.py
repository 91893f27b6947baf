"""The built-in engine: continuous batching over one base model and any of its adapters."""

from __future__ import annotations

import itertools
import logging
import queue
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.compute_threads import ComputeThread, SpinControl, observe, usable_cpus
from sienn_ray.context_length import context_tokens_of
from sienn_ray.errors import AdapterMemoryError, EngineError, first_line
from sienn_ray.inference.assigned_device import assigned_device
from sienn_ray.inference.batching.device_faults import is_device_fault
from sienn_ray.inference.batching.generation import AdapterUse, RunningGeneration
from sienn_ray.inference.batching.loading import load_runner
from sienn_ray.inference.batching.scheduler import Scheduler
from sienn_ray.inference.engine import Generation, GenerationDelta, GenerationRequest
from sienn_ray.inference.model.kv_blocks import BlockPool
from sienn_ray.inference.model.lora_weights import LoraWeights, read_lora
from sienn_ray.inference.requests.adapter_files import AdapterFiles
from sienn_ray.inference.requests.open_requests import OpenRequests
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.requests.request_preparation import LoadedAdapter, RequestPreparation
from sienn_ray.inference.sampling.sampler import eos_token_ids, sample
from sienn_ray.inference.text.vocabulary import Vocabulary
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

BLOCK_TOKENS = 32
_IDLE_S = 0.5


@dataclass(frozen=True)
class NamedLora:
    """LoRA weights in memory.

    Args:
        name: Name of this load of them; another load of the same adapter has another one.
        weights: The weights.
    """

    name: str
    weights: LoraWeights

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return self.weights.size_bytes


class BatchingEngine:
    """`Engine` on transformers: continuous batching, chunked prefill, paged KV cache, prefix cache, batched LoRA.

    One thread computes. At every step the scheduler has requests join and leave the batch, the model runner computes
    one forward pass over all their tokens, and the sampler chooses the next token of each request that decodes.

    Args:
        base_model: Hub id.
        settings: Storage, limits, threads.
        revision: Its commit; None is what is here, or the main branch.
        num_gpus: GPUs that were assigned to this process, also a part of one; None takes one where CUDA shows any.
    """

    def __init__(
        self, base_model: str, settings: Settings, revision: str | None = None, *, num_gpus: float | None = None
    ) -> None:
        self.base_model = base_model
        self._settings = settings
        folder = local_folder(base_model, settings, revision)
        assigned = assigned_device(num_gpus)
        self._device = assigned.device
        tokenizer = load_tokenizer(folder)
        # This thread loads the model too: a second thread with OpenMP workers would have all sleep between products.
        self._thread = ComputeThread("engine", int(settings.engine_num_cpus) or usable_cpus())
        try:
            model, self._runner = self._thread.run(lambda: load_runner(folder, assigned, settings, BLOCK_TOKENS))
        except BaseException:
            self._thread.end()
            raise
        self._vocab_size = model.get_input_embeddings().num_embeddings
        generation_eos = model.generation_config.eos_token_id if model.generation_config else None
        self._eos = frozenset(eos_token_ids(generation_eos, tokenizer.eos_token_id))
        pool = BlockPool(self._runner.num_blocks, BLOCK_TOKENS)
        step_tokens = settings.step_tokens(on_gpu=self._device.type != "cpu")
        self._scheduler = Scheduler(pool, settings, step_tokens, self._have_room)
        self._preparation = RequestPreparation(
            settings,
            PromptEncoder(
                base_model,
                tokenizer,
                context_tokens=context_tokens_of(model.config.to_dict()),
                cache_tokens=self._runner.num_blocks * BLOCK_TOKENS,
            ),
            Vocabulary(tokenizer),
            self._read_lora,
            lambda lora: self._unloaded.put(lora.name),
        )
        self._requests = OpenRequests(base_model, settings.engine_max_queue)
        self._unloaded: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._load_numbers = itertools.count()
        self._weights: dict[str, LoraWeights] = {}
        self._prepared: queue.SimpleQueue[RunningGeneration | None] = queue.SimpleQueue()
        self._step_began_at: float | None = None
        #: OpenMP threads of the thread that computes.
        self.compute_setup = self._thread.run(observe)
        logger.info("the engine of %s computes with %s", base_model, self.compute_setup)
        self._num_failed_steps = 0
        self._running = self._thread.start(self._run)

    @property
    def num_cpus(self) -> int | None:
        """See `Engine.num_cpus`."""
        return self.compute_setup.num_threads if self._device.type == "cpu" else None

    @property
    def num_adapters(self) -> int:
        """See `Engine.num_adapters`."""
        return self._preparation.num_adapters

    @property
    def num_adapter_loads(self) -> int:
        """Adapters loaded since the start; a cache hit doesn't count."""
        return self._preparation.num_adapter_loads

    @property
    def stuck_s(self) -> float:
        """See `Engine.stuck_s`."""
        began_at = self._step_began_at
        return 0.0 if began_at is None else time.monotonic() - began_at

    @property
    def failure(self) -> str | None:
        """See `Engine.failure`."""
        if not self._requests.is_closed and self._running.done():
            return "the thread that computes has ended"
        return self._requests.failure

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        """See `Engine.submit`."""
        generation = RunningGeneration(request, listener)
        self._requests.add(generation, self._scheduler.num_running)
        self._preparation.submit(generation, partial(self._ready, generation))
        return generation

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """See `Engine.load_adapter`."""
        self._preparation.load_adapter(adapter_id, adapter_key)

    def kill(self) -> None:
        """See `Engine.kill`: this engine has no process of its own."""

    def close(self) -> None:
        """See `Engine.close`."""
        self._requests.close()
        self._prepared.put(None)
        self._thread.end()
        self._requests.fail_all()
        self._preparation.close()

    # Threads that prepare requests.

    def _ready(self, generation: RunningGeneration, adapter: LoadedAdapter[NamedLora] | None) -> None:
        if adapter is None:
            use = AdapterUse(self.base_model, None)
        else:
            use = AdapterUse(adapter.files.content_hash, adapter.weights.name)
            self._weights[adapter.weights.name] = adapter.weights.weights
        generation.prepare(use, self._vocab_size)
        self._prepared.put(generation)

    def _read_lora(self, files: AdapterFiles) -> NamedLora:
        weights = read_lora(files.folder, self.base_model, self._runner.lora.layers, self._runner.dtype)
        return NamedLora(f"{files.content_hash}-{next(self._load_numbers)}", self._runner.lora.readied(weights))

    # The thread that computes.

    def _run(self) -> None:
        spin = SpinControl()
        try:
            self._run_until_closed(spin)
        except BaseException as error:  # no caller awaits this
            logger.critical("the engine of %s has ended", self.base_model, exc_info=True)
            self._requests.fail(f"the thread that computes has ended: {type(error).__name__}: {error}")
            raise
        finally:
            spin.end()

    def _run_until_closed(self, spin: SpinControl) -> None:
        while not self._requests.is_closed:
            self._take_prepared(is_idle=self._scheduler.is_idle)
            self._scheduler.drop_abandoned()
            self._scheduler.admit()
            if self._scheduler.running:
                self._step()
                spin.look()

    def _take_prepared(self, *, is_idle: bool) -> None:
        with suppress(queue.Empty):
            while True:
                generation = self._prepared.get(block=is_idle, timeout=_IDLE_S)
                is_idle = False
                if generation is not None:
                    self._scheduler.add(generation)

    def _have_room(self, names: Collection[str]) -> bool:
        return self._runner.lora.has_room([self._weights[name].max_r for name in names])

    def _step(self) -> None:
        self._step_began_at = time.monotonic()
        try:
            self._compute()
            self._num_failed_steps = 0
        except Exception as error:
            logger.exception("a step failed")
            self._note_failed_step(error)
        finally:
            self._step_began_at = None
        self._scheduler.retire()

    def _note_failed_step(self, error: Exception) -> None:
        """End the requests of a step that failed, and the engine where no further step can be expected to succeed."""
        self._num_failed_steps += 1
        if is_device_fault(error):
            self._requests.fail(f"its device has failed: {first_line(error)}")
        elif self._num_failed_steps >= self._settings.engine_max_failed_steps:
            self._requests.fail(f"{self._num_failed_steps} steps have failed in a row: {first_line(error)}")
        for generation in self._scheduler.running:
            generation.fail(EngineError(f"the engine failed: {type(error).__name__}: {error}"))

    def _compute(self) -> None:
        while not self._unloaded.empty():
            name = self._unloaded.get()
            self._runner.lora.forget(name)
            self._weights.pop(name, None)
        rows = self._scheduler.plan()
        try:
            logits = self._runner.step([row for _, row in rows], self._weights)
        except AdapterMemoryError as error:  # others go on without these
            for generation, row in rows:
                if row.adapter in error.names:
                    generation.fail(error)
            return
        for generation, row in rows:
            generation.num_computed += row.num_new
        with_logits = [generation for generation, row in rows if row.wants_logits]
        if not with_logits:
            return
        tokens = sample(logits, [each.sampler for each in with_logits])
        for generation, token in zip(with_logits, tokens, strict=True):
            if token.is_broken:
                generation.fail(EngineError("the model's scores aren't numbers; the adapter may have diverged"))
                continue
            if generation.num_generated == 0:
                self._scheduler.note_prefilled(generation)
            generation.take(token, self._eos)
