"""Our engine over random models: whole requests through its threads, and single steps of its model runner."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from checks import Place
from models import ascii_prompts, llama_config, load_tokenizer, random_adapter, random_llama, save_to_hub_cache

from sienn_ray.inference.batching.engine import BLOCK_TOKENS, BatchingEngine
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, SamplingParams
from sienn_ray.inference.model.decode_graphs import Capture, CudaCapture
from sienn_ray.inference.model.lora_weights import LoraWeights, read_lora
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from sienn_ray.settings import Settings
from tests.support.captures import RecordedCapture

_ANSWER_S = 300.0


@dataclass(frozen=True)
class Asked:
    """Requests that are sent at once.

    Args:
        num_requests: How many.
        prompt_tokens: Of each.
        answer_tokens: Of each.
        num_adapters: Adapters, one after the other; 0 asks the base model.
    """

    num_requests: int
    prompt_tokens: int
    answer_tokens: int
    num_adapters: int = 0


@dataclass(frozen=True)
class Answered:
    """Answers to `Asked`.

    Args:
        num_tokens: Tokens of all answers.
        seconds: From the first request to the last token.
        first_token_s: Median seconds to a request's first token.
    """

    num_tokens: int
    seconds: float
    first_token_s: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens of answers a second, their prompts' time included."""
        return self.num_tokens / self.seconds


def model_id(shape: str) -> str:
    """Hub id under which a random model is kept."""
    return f"benchmarks/random-{shape}"


def saved_model(shape: str, place: Place) -> Path:
    """The folder of a random model in the hub's cache; written at the first call."""
    folder = place.scratch / "hub" / "hub" / f"models--benchmarks--random-{shape}" / "snapshots" / ("0" * 40)
    if not (folder / "tokenizer.json").is_file():
        save_to_hub_cache(random_llama(shape, place), model_id(shape), place)
    return folder


def forget_model(shape: str, place: Place) -> None:
    """Give the room of a random model back."""
    shutil.rmtree(place.scratch / "hub" / "hub" / f"models--benchmarks--random-{shape}", ignore_errors=True)


@contextmanager
def engine_of(shape: str, place: Place, num_adapters: int = 0, **options: Any) -> Iterator[BatchingEngine]:
    """The product's engine over a random model, with adapters in its storage, as it comes but for `options`."""
    folder = saved_model(shape, place)
    storage = place.scratch / "storage"
    for number in range(num_adapters):
        _publish(number, shape, folder, storage, place)
    if place.is_rehearsal:
        options = {"engine_kv_cache_bytes": 64 << 20, **options}
    settings = Settings(home=place.scratch / "home", storage_url=f"file://{storage}", engine_max_queue=256, **options)
    engine = BatchingEngine(model_id(shape), settings)
    try:
        yield engine
    finally:
        engine.close()


def _publish(number: int, shape: str, model_folder: Path, storage: Path, place: Place) -> None:
    from sienn_ray.datasets.prompt import FILE_NAME, PromptFormat
    from sienn_ray.storage import Storage

    key = _adapter_key(number, shape)
    if (storage / key).is_dir():
        return
    folder = place.scratch / "unpublished"
    shutil.rmtree(folder, ignore_errors=True)
    random_adapter(folder, model_id(shape), llama_config(shape, place), seed=number)
    (folder / FILE_NAME).write_text(PromptFormat.for_chat(load_tokenizer(model_folder)).to_json())
    Storage(f"file://{storage}").publish(folder, key)


def _adapter_key(number: int, shape: str) -> str:
    return f"adapters/{shape}-{number}"


def ask(engine: BatchingEngine, shape: str, asked: Asked, seed: int = 0) -> Answered:
    """Send requests at once and wait for all answers.

    Raises:
        SiennError: One failed.
        TimeoutError: One isn't answered.
    """
    listeners = [_Listener() for _ in range(asked.num_requests)]
    prompts = ascii_prompts(asked.num_requests, asked.prompt_tokens, seed)
    sampling = SamplingParams(max_new_tokens=asked.answer_tokens, do_sample=False, repetition_penalty=1.0)
    began = time.perf_counter()
    for number, (prompt, listener) in enumerate(zip(prompts, listeners, strict=True)):
        adapter = number % asked.num_adapters if asked.num_adapters else None
        request = GenerationRequest(
            prompt,
            adapter_id=None if adapter is None else f"{shape}-{adapter}",
            adapter_key=None if adapter is None else _adapter_key(adapter, shape),
            sampling=sampling,
        )
        engine.submit(request, listener.take)
    for listener in listeners:
        listener.wait()
    results = [listener.result for listener in listeners]
    firsts = [result.time_to_first_token_s for result in results if result.time_to_first_token_s is not None]
    return Answered(
        sum(result.num_generated_tokens for result in results),
        max(listener.ended_s for listener in listeners) - began,
        statistics.median(firsts) if firsts else float("nan"),
    )


class _Listener:
    """Waits for one answer."""

    def __init__(self) -> None:
        self.result: Any = None
        self.ended_s = 0.0
        self._error: BaseException | None = None
        self._is_over = threading.Event()

    def take(self, delta: GenerationDelta) -> None:
        if delta.is_last:
            self.result, self._error, self.ended_s = delta.result, delta.error, time.perf_counter()
            self._is_over.set()

    def wait(self) -> None:
        if not self._is_over.wait(_ANSWER_S):
            raise TimeoutError(f"no answer within {_ANSWER_S} s")
        if self._error is not None:
            raise self._error


class Steps:
    """Single steps of the model runner over a random model, with one adapter's weights under many names.

    Args:
        shape: Of the base model.
        place: Where.
        cache_tokens: Tokens that the cache of keys and values has room for.
    """

    def __init__(self, shape: str, place: Place, cache_tokens: int) -> None:
        config = llama_config(shape, place)
        model = random_llama(shape, place)
        size = config.head_dim or config.hidden_size // config.num_attention_heads
        token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * size * model.dtype.itemsize
        self.runner = runner_of(model, (cache_tokens + 64 * BLOCK_TOKENS) * token_bytes)
        folder = place.scratch / f"adapter-{shape}"
        random_adapter(folder, model_id(shape), config, seed=0)
        weights = read_lora(folder, model_id(shape), self.runner.lora.layers, self.runner.dtype)
        self._adapters: dict[str, LoraWeights] = {f"adapter-{number}": weights for number in range(64)}
        self.vocab_size: int = config.vocab_size

    def prefill(self, num_rows: int, num_tokens: int) -> list[StepRow]:
        """Compute prompts; gives the rows of the decoding step behind them."""
        rows = self.rows(num_rows, num_tokens)
        for row in rows:
            self.step([StepRow(row.tokens[:-1], 0, row.blocks, None, wants_logits=True)])
        return rows

    def rows(self, num_rows: int, num_tokens: int, num_adapters: int = 0) -> list[StepRow]:
        """Rows of a decoding step, each behind so many tokens."""
        size = -(-(num_tokens + 1) // BLOCK_TOKENS)
        return [
            StepRow(
                [(7 * place * (number + 2) + number) % (self.vocab_size - 3) + 3 for place in range(num_tokens + 1)],
                num_tokens,
                range(number * size, (number + 1) * size),
                f"adapter-{number % num_adapters}" if num_adapters else None,
                wants_logits=True,
            )
            for number in range(num_rows)
        ]

    @contextmanager
    def as_they_are(self) -> Iterator[None]:
        """Have steps neither captured nor replayed meanwhile."""
        assert self.runner.graphs is not None
        assert not self.runner.graphs.is_off
        self.runner.graphs.is_off = True
        try:
            yield
        finally:
            self.runner.graphs.is_off = False

    def step(self, rows: Sequence[StepRow]) -> torch.Tensor:
        """Do one step; gives its logits."""
        return self.runner.step(rows, self._adapters)


def runner_of(model: Any, cache_bytes: int, *, is_graphed: bool = True) -> ModelRunner:
    """A model runner that computes as on a GPU, also in a rehearsal, where recorded operators are its graphs."""
    capture: Capture | None = None
    if is_graphed:
        capture = CudaCapture() if model.device.type == "cuda" else RecordedCapture()
    return ModelRunner(model, cache_bytes, BLOCK_TOKENS, for_gpu=True, capture=capture)
