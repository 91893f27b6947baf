"""`Engine` on vLLM: its scheduler and kernels, behind our prompts, texts, queue and adapters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.compute_threads import usable_cpus
from sienn_ray.errors import EngineError, InvalidInputError, SiennError, first_line
from sienn_ray.inference.assigned_device import assigned_device
from sienn_ray.inference.engine import Generation, GenerationDelta, GenerationRequest
from sienn_ray.inference.model.lora_weights import read_lora
from sienn_ray.inference.requests.adapter_files import AdapterFiles, read_config
from sienn_ray.inference.requests.open_requests import OpenRequests
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.requests.request_preparation import LoadedAdapter, RequestPreparation
from sienn_ray.inference.text.vocabulary import Vocabulary
from sienn_ray.inference.vllm_engine.arguments import engine_arguments, variables
from sienn_ray.inference.vllm_engine.base_facts import BaseFacts
from sienn_ray.inference.vllm_engine.batch import Batch, VllmAnswer
from sienn_ray.inference.vllm_engine.core import Core, is_refusal
from sienn_ray.inference.vllm_engine.lora_files import LoraFiles
from sienn_ray.inference.vllm_engine.lora_places import lora_places
from sienn_ray.inference.vllm_engine.refusals import unsupported, way_out
from sienn_ray.inference.vllm_engine.sampling import sampled_tokens, sampling_fields
from sienn_ray.inference.vllm_engine.versions import check_version, installed_version, is_cpu_build
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldLora:
    """An adapter that vLLM has in memory.

    Args:
        content_hash: Hash of its files.
        size_bytes: Bytes of its weights.
    """

    content_hash: str
    size_bytes: int


class VllmEngine:
    """`Engine` on vLLM, which gets token ids and gives token ids.

    Prompts, texts, stop strings and log-probabilities come from the same code as the built-in engine's, and so do the
    queue and the cache of adapters. One thing is lost: logits that aren't numbers end no answer in an error.

    Args:
        base_model: Hub id.
        settings: Storage, limits, memory.
        revision: Its commit; None is what is here, or the main branch.
        core: A core with the same weights, which is left running at the end; None starts one.

    Raises:
        EngineError: vLLM isn't here, is of another version than is supported, or can't load the base model.
    """

    def __init__(
        self, base_model: str, settings: Settings, revision: str | None = None, core: Core | None = None
    ) -> None:
        check_version(installed_version())
        folder = local_folder(base_model, settings, revision)
        tokenizer = load_tokenizer(folder)
        self._base_model = base_model
        self._base = BaseFacts.of(folder, tokenizer)
        self._settings = settings
        self._is_cpu = is_cpu_build()
        self._owns_core = core is None
        #: vLLM itself.
        self.core = core or self._start_core(folder)
        prompts = PromptEncoder(
            base_model, tokenizer, context_tokens=self._base.context_tokens, cache_tokens=self.core.max_tokens
        )
        self._preparation = RequestPreparation(
            settings,
            prompts,
            Vocabulary(tokenizer),
            self._load_lora,
            lambda lora: self.core.release_lora(lora.content_hash),
        )
        self._requests = OpenRequests(base_model, settings.engine_max_queue)
        self._batch = Batch(settings, self._compute)
        self.core.when_over(self._note_end)

    def _start_core(self, folder: Path) -> Core:
        num_places = lora_places(self._settings, self._base, None if self._is_cpu else self._gpu_bytes())
        arguments = engine_arguments(folder, self._settings, is_cpu=self._is_cpu, num_places=num_places)
        lora_files = LoraFiles(self._settings.adapters_dir / "vllm")
        core = Core(arguments, variables(self._settings, is_cpu=self._is_cpu), lora_files)
        logger.info("vLLM %s serves %s", installed_version(), self._base_model)
        return core

    def _gpu_bytes(self) -> int:
        device = assigned_device(self._settings.engine_num_gpus).device
        if device.type == "cpu":
            raise EngineError("this vLLM computes on GPUs, and none is assigned; set SIENN_ENGINE=builtin")
        return int(torch.cuda.get_device_properties(device).total_memory)

    @property
    def num_cpus(self) -> int | None:
        """See `Engine.num_cpus`."""
        return (int(self._settings.engine_num_cpus) or usable_cpus()) if self._is_cpu else None

    @property
    def num_adapters(self) -> int:
        """See `Engine.num_adapters`."""
        return self._preparation.num_adapters

    @property
    def stuck_s(self) -> float:
        """Seconds since the last token of any request while some run; vLLM doesn't tell when a step begins."""
        return self._batch.silent_s

    @property
    def failure(self) -> str | None:
        """See `Engine.failure`."""
        if (reason := self.core.failure) is not None:
            self._requests.fail(reason)
        return self._requests.failure

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        """See `Engine.submit`."""
        answer = VllmAnswer(request, listener, partial(self.core.call_soon, self._batch.look))
        self._requests.add(answer, self._batch.num_running)
        self._preparation.submit(answer, partial(self._ready, answer))
        return answer

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """See `Engine.load_adapter`."""
        self._preparation.load_adapter(adapter_id, adapter_key)

    def kill(self) -> None:
        """End vLLM's processes at once, as this process is about to end without closing the engine."""
        self.core.kill()

    def close(self) -> None:
        """See `Engine.close`."""
        self._requests.close()
        self.core.wait_for(self._batch.stop)
        if self._owns_core:
            self.core.close()
        self._requests.fail_all()
        self._preparation.close()

    # Threads that prepare requests.

    def _load_lora(self, files: AdapterFiles) -> HeldLora:
        """Check an adapter as the built-in engine does, then have vLLM load it.

        vLLM leaves out weights for modules that the base model doesn't have, if their names are alike (vLLM #34186).
        """
        config = read_config(files.folder, self._base_model)
        if (reason := unsupported(config, self._settings.engine_max_lora_rank)) is not None:
            raise EngineError(f"the adapter {reason}; {way_out(reason)}")
        dtype = torch.float32 if self._is_cpu else torch.bfloat16
        size_bytes = read_lora(files.folder, self._base_model, self._base.layers, dtype).size_bytes
        self.core.hold_lora(files.content_hash, files.folder)
        return HeldLora(files.content_hash, size_bytes)

    def _ready(self, answer: VllmAnswer, adapter: LoadedAdapter[HeldLora] | None) -> None:
        answer.adapter_hash = None if adapter is None else adapter.weights.content_hash
        self.core.call_soon(partial(self._batch.add, answer))

    # The loop's thread.

    async def _compute(self, answer: VllmAnswer) -> None:
        """Have vLLM compute an answer; where it isn't over at the end, the request was aborted."""
        answer.start()
        try:
            async with self.core.lora(answer.adapter_hash) as lora:
                await self._take_tokens(answer, lora)
        except Exception as error:
            if self.failure is None:
                logger.exception("a request failed")
            answer.fail(_told(error))

    async def _take_tokens(self, answer: VllmAnswer, lora: object) -> None:
        fields = sampling_fields(answer.request.sampling, answer.prompt, self._base.eos)
        async with aclosing(self.core.generate(answer.prompt.input_ids, fields, lora)) as outputs:
            async for output in outputs:
                self._batch.note_output()
                answer.note_cached(output.num_cached_tokens or 0)
                for sampled in sampled_tokens(output.outputs[0], answer.request.sampling.num_logprobs):
                    answer.take(sampled, self._base.eos)
                    if answer.is_over:
                        return
        raise EngineError("vLLM has ended an answer before its last token")

    def _note_end(self) -> None:
        """Fail all requests, now that the loop has ended."""
        if (reason := self.core.failure) is not None:
            self._requests.fail(reason)


def _told(error: Exception) -> SiennError:
    """Return an error of vLLM's as one of ours."""
    if isinstance(error, SiennError):
        return error
    if is_refusal(error):
        return InvalidInputError(f"vLLM can't carry the request out: {first_line(error)}")
    return EngineError(f"the engine failed: {type(error).__name__}: {first_line(error)}")
