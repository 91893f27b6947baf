"""The engine that every installation has: transformers and PEFT, on a CPU or one GPU."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from sienn_ray.base_model import load_causal_lm, load_tokenizer, local_folder
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.tokenization import encode
from sienn_ray.errors import ArtifactError, EngineError, InvalidInputError
from sienn_ray.inference.adapter_cache import AdapterCache, LoadedAdapter
from sienn_ray.inference.engine import GenerationRequest, GenerationResult
from sienn_ray.inference.sampling import eos_token_ids, generation_options
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

_IDLE_ADAPTER = "idle"


class TransformersEngine:
    """One base model and a bounded cache of adapters; answers one request at a time.

    Args:
        base_model: Hub id.
        settings: Storage, cache limits, threads.
    """

    def __init__(self, base_model: str, settings: Settings) -> None:
        self.base_model = base_model
        self._storage = Storage(settings.storage_url)
        self._adapters_dir = settings.adapters_dir
        # Ray gives an actor that reserves no CPU a single thread; an engine takes what the machine has.
        torch.set_num_threads(int(settings.engine_num_cpus) or len(os.sched_getaffinity(0)))
        folder = local_folder(base_model, settings)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = load_tokenizer(folder)
        self._base: Any = load_causal_lm(folder, self._device).eval()
        self._peft: PeftModel | None = None
        self._formats: dict[str, PromptFormat] = {}
        self._base_format = PromptFormat.for_chat(self._tokenizer)
        self._eos = eos_token_ids(self._base.generation_config.eos_token_id, self._tokenizer.eos_token_id)
        self._cache = AdapterCache(
            self._unload, max_count=settings.adapter_cache_max_count, max_bytes=settings.adapter_cache_max_bytes
        )
        # Which adapter is active is state of the model, so choosing one and generating with it are one step.
        self._lock = threading.Lock()

    @property
    def num_adapter_loads(self) -> int:
        """Adapters loaded since the start; a cache hit doesn't count."""
        return self._cache.num_loads

    @property
    def num_adapters(self) -> int:
        """Adapters in memory."""
        return len(self._cache)

    def generate(self, request: GenerationRequest, cancelled: threading.Event | None = None) -> GenerationResult:
        """Answer one request.

        Raises:
            InvalidInputError: Prompt and answer don't fit into the model's context.
            ArtifactError: The adapter is missing from storage, or was altered.
            EngineError: The adapter belongs to another base model, or can't be loaded.
        """
        arrived = time.monotonic()
        with self._lock:
            started = time.monotonic()
            watch = _Watch(cancelled or threading.Event())
            loads_before = self._cache.num_loads
            with self._adapter(request) as prompt_format:
                rendered = prompt_format.prompt(self._tokenizer, [{"role": "user", "content": request.prompt}])
                prompt_ids = encode(self._tokenizer, rendered, is_start=True, kind=prompt_format.kind)
                self._check_length(len(prompt_ids), request)
                generated = self._run(prompt_ids, request, watch)
            ended = bool(generated) and generated[-1] in self._eos
            return GenerationResult(
                text=self._tokenizer.decode(generated, skip_special_tokens=True).strip(),
                rendered_prompt=rendered,
                num_prompt_tokens=len(prompt_ids),
                num_generated_tokens=len(generated),
                finish_reason="stop" if ended else "length",
                adapter_cached=self._cache.num_loads == loads_before,
                generation_time_s=time.monotonic() - started,
                time_to_first_token_s=None if watch.first_token_at is None else watch.first_token_at - arrived,
            )

    @torch.inference_mode()
    def _run(self, prompt_ids: list[int], request: GenerationRequest, watch: _Watch) -> list[int]:
        input_ids = torch.tensor([prompt_ids], device=self._device)  # (1, prompt tokens)
        options = generation_options(
            request, eos_token_ids=self._eos, pad_token_id=self._tokenizer.pad_token_id or self._eos[0]
        )
        with _seeded(request.seed):
            output = self._base.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                generation_config=GenerationConfig(**options),
                stopping_criteria=StoppingCriteriaList([watch]),
            )
        ids: list[int] = output[0, len(prompt_ids) :].tolist()
        return ids

    def _check_length(self, num_prompt_tokens: int, request: GenerationRequest) -> None:
        limit = getattr(self._base.config, "max_position_embeddings", None)
        if num_prompt_tokens == 0:
            raise InvalidInputError("prompt has no tokens; write something to go on from")
        if limit and num_prompt_tokens + request.max_new_tokens > limit:
            raise InvalidInputError(
                f"prompt has {num_prompt_tokens} tokens and max_new_tokens is {request.max_new_tokens}; together they "
                f"exceed the {limit} tokens of {self.base_model}; shorten the prompt or lower max_new_tokens"
            )

    @contextmanager
    def _adapter(self, request: GenerationRequest) -> Iterator[PromptFormat]:
        """Make the request's adapter the active one, or none; gives the prompt format to use."""
        if request.adapter_id is None or request.adapter_key is None:
            if self._peft is None:
                yield self._base_format
                return
            with self._peft.disable_adapter():
                yield self._base_format
            return
        adapter = self._cache.get(request.adapter_id)
        if adapter is None:
            key = request.adapter_key
            adapter = self._cache.add(request.adapter_id, lambda: self._load(key))
        assert self._peft is not None  # noqa: S101  (an adapter was loaded into it)
        self._peft.set_adapter(adapter.name)
        yield self._formats[adapter.name]

    def _load(self, adapter_key: str) -> LoadedAdapter:
        folder = self._storage.fetch(adapter_key, self._adapters_dir)
        self._check_adapter(folder, adapter_key)
        # Named after its content: PEFT takes no dots in names, and equal names must mean equal weights.
        name = f"adapter_{folder.name}_{self._cache.num_loads}"
        prompt_format = PromptFormat.from_json((folder / PROMPT_FORMAT_FILE).read_text())
        if self._peft is None:
            self._peft = _with_idle_adapter(self._base)
        try:
            _check_loaded(self._peft.load_adapter(folder, adapter_name=name).missing_keys)
        except (ValueError, RuntimeError, KeyError, SafetensorError) as error:
            self._delete(name)
            raise EngineError(f"{adapter_key} can't be loaded onto {self.base_model}: {error}") from error
        self._formats[name] = prompt_format
        logger.info("loaded %s as %s", adapter_key, name)
        return LoadedAdapter(name, (folder / "adapter_model.safetensors").stat().st_size)

    def _check_adapter(self, folder: Path, adapter_key: str) -> None:
        try:
            trained_on = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{adapter_key}/adapter_config.json can't be read: {error}") from error
        if trained_on != self.base_model:
            raise EngineError(f"{adapter_key} was trained on '{trained_on}', this engine holds '{self.base_model}'")
        for name in ("adapter_model.safetensors", PROMPT_FORMAT_FILE):
            if not (folder / name).is_file():
                raise ArtifactError(f"{adapter_key} has no {name}; other formats of adapters are not loaded")

    def _unload(self, adapter: LoadedAdapter) -> None:
        self._formats.pop(adapter.name, None)
        self._delete(adapter.name)

    def _delete(self, name: str) -> None:
        """Take an adapter out of the model, also one that was loaded only in part."""
        if self._peft is not None and name in self._peft.peft_config:
            self._peft.set_adapter(_IDLE_ADAPTER)
            self._peft.delete_adapter(name)


def _check_loaded(missing_keys: list[str]) -> None:
    """PEFT leaves what a file doesn't have as it was initialized, without a word."""
    if missing_keys:
        raise ValueError(f"{len(missing_keys)} of its tensors are missing, {missing_keys[0]} among them")


def _with_idle_adapter(base: Any) -> PeftModel:
    """Wrap a base model around an adapter of next to no size.

    It stays, so that PEFT always has an active adapter: without one, a model can neither disable adapters nor take one.
    """
    lora = LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM", inference_mode=True)
    return get_peft_model(base, lora, adapter_name=_IDLE_ADAPTER).eval()


class _Watch(StoppingCriteria):  # type: ignore[misc]
    """Notes when the first token came, and ends generation at the next one once nobody waits for it."""

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self.first_token_at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        return torch.full((input_ids.shape[0],), self._cancelled.is_set(), device=input_ids.device)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Sample repeatably, and leave the random state of everything else alone."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
