"""The batching engine beyond what every engine does, for which see `conformance`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sienn_ray.errors import CapacityError, EngineError, InvalidInputError
from sienn_ray.inference.batching.engine import BatchingEngine
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import GenerationDelta
from sienn_ray.inference.model.packed_linear import PackedLinear
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.checkpoint_files import ADAPTER_WEIGHTS
from tests.support.tiny_model import TINY_ID
from tests.unit.inference.asking import ENDLESS, GREEDY, Listener, copy_of, sampled, with_adapter

ONE_TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # layers, keys and values, key heads, head size, float32
Start = Callable[..., BatchingEngine]


@pytest.fixture
def start(settings: Settings, storage: Storage, hub_home: Path) -> Iterator[Start]:
    """Starts an engine, with other settings, and ends it after the test."""
    with ExitStack() as stack:

        def start(**changes: Any) -> BatchingEngine:
            engine = BatchingEngine(TINY_ID, settings.model_copy(update=changes))
            stack.callback(engine.close)
            return engine

        yield start


@pytest.fixture
def engine(start: Start) -> BatchingEngine:
    """An engine with the usual settings."""
    return start()


def test_model_that_packed_weights_do_not_suit_keeps_its_own(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = generate(start(), GREEDY).text
    forward = PackedLinear.forward
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: 1.1 * forward(self, x))
    assert generate(start(), GREEDY).text == expected
    if torch._C.has_mkl:
        assert "can't have packed weights" in caplog.text


def test_requests_join_while_others_are_answered(engine: BatchingEngine) -> None:
    long, short = Listener(), Listener()
    generation = engine.submit(ENDLESS, long)
    long.wait_for_text()
    engine.submit(GREEDY, short)
    assert short.wait().result is not None
    assert not long.is_over
    generation.cancel()
    assert long.wait().result is not None


def test_an_adapter_is_loaded_once_for_all_who_ask(engine: BatchingEngine) -> None:
    engine.load_adapter("plus", "adapters/plus")
    with ThreadPoolExecutor(max_workers=6) as pool:
        list(pool.map(lambda request: generate(engine, request), [with_adapter("plus")] * 6))
    assert engine.num_adapter_loads == 1


def test_a_step_that_goes_on_shows(engine: BatchingEngine) -> None:
    seen: list[float] = []
    listener = Listener()

    def look(delta: GenerationDelta) -> None:
        seen.append(engine.stuck_s)
        listener(delta)

    engine.submit(GREEDY, look)
    listener.wait()
    assert all(stuck_s > 0 for stuck_s in seen)
    engine.close()
    assert engine.stuck_s == 0


def test_chunked_prefill_changes_no_answer(start: Start) -> None:
    request = with_adapter("plus", replace(GREEDY, prompt="word " * 300))
    expected = generate(start(engine_step_tokens=10_000), request).text
    assert expected
    assert generate(start(engine_step_tokens=7, engine_max_batch=4), request).text == expected


class TestKvCache:
    def test_requests_wait_for_room(self, start: Start) -> None:
        engine = start(engine_kv_cache_bytes=96 * ONE_TOKEN_BYTES)
        request = with_adapter("plus")
        expected = generate(engine, request).text
        assert expected
        with ThreadPoolExecutor(max_workers=6) as pool:
            results = list(pool.map(lambda request: generate(engine, request), [request] * 6))
        assert [result.text for result in results] == [expected] * 6

    def test_what_never_fits_is_refused(self, start: Start) -> None:
        engine = start(engine_kv_cache_bytes=96 * ONE_TOKEN_BYTES)
        with pytest.raises(InvalidInputError, match=r"96 tokens that fit \(SIENN_ENGINE_KV_CACHE_BYTES"):
            generate(engine, sampled(max_new_tokens=90))

    def test_a_shared_prefix_is_computed_once(self, engine: BatchingEngine) -> None:
        request = with_adapter("plus", replace(GREEDY, prompt="word " * 100))
        first, second = generate(engine, request), generate(engine, request)
        assert first.num_cached_tokens == 0
        assert second.num_cached_tokens >= 64
        assert first.text == second.text != ""
        other = generate(engine, with_adapter("minus", request))
        assert other.num_cached_tokens == 0
        assert other.text != first.text


def test_scores_that_are_no_numbers_end_their_own_request_only(
    engine: BatchingEngine, storage: Storage, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(adapter_folders["plus"], tmp_path)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    save_file({name: tensor * 1e30 for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
    storage.publish(folder, "adapters/huge")
    request = sampled(with_adapter("plus"), max_new_tokens=40)
    expected = generate(engine, request).text
    listener = Listener()
    engine.submit(request, listener)
    with pytest.raises(EngineError, match="aren't numbers"):
        generate(engine, with_adapter("huge"))
    assert listener.result().text == expected


class Broken:
    """A model runner whose steps fail, all of them or the first ones."""

    def __init__(self, runner: Any, error: Exception, num_failures: int = 1_000) -> None:
        self._runner = runner
        self._error = error
        self._num_left = num_failures

    def step(self, *arguments: Any) -> torch.Tensor:
        if self._num_left > 0:
            self._num_left -= 1
            raise self._error
        logits: torch.Tensor = self._runner.step(*arguments)
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


def broken(engine: BatchingEngine, error: Exception, num_failures: int = 1_000) -> BatchingEngine:
    """The engine, whose next steps fail."""
    runner: Any = Broken(engine._runner, error, num_failures)
    engine._runner = runner
    return engine


class TestFailedSteps:
    def test_a_fault_of_the_device_is_a_failure_at_once(self, engine: BatchingEngine) -> None:
        broken(engine, RuntimeError("CUDA error: device-side assert triggered\nCompile with ..."))
        listener = Listener()
        engine.submit(GREEDY, listener)
        error = listener.wait().error
        assert isinstance(error, CapacityError)
        assert error.message == f"the engine of {TINY_ID} has failed and is being replaced; ask again in a moment"
        assert engine.failure == "its device has failed: CUDA error: device-side assert triggered"

    def test_some_failed_steps_in_a_row_are_a_failure(self, start: Start) -> None:
        engine = broken(start(engine_max_failed_steps=2), ValueError("no such shape"))
        with pytest.raises(EngineError, match="no such shape"):
            generate(engine, GREEDY)
        assert engine.failure is None
        with pytest.raises(CapacityError, match="has failed and is being replaced"):
            generate(engine, GREEDY)
        assert engine.failure == "2 steps have failed in a row: no such shape"

    def test_a_step_that_succeeds_ends_the_row(self, start: Start) -> None:
        engine = start(engine_max_failed_steps=2)
        for _ in range(3):
            with pytest.raises(EngineError, match="no such shape"):
                generate(broken(engine, ValueError("no such shape"), 1), GREEDY)
            assert generate(engine, GREEDY).num_generated_tokens == 12
        assert engine.failure is None


def test_an_adapter_that_memory_is_too_short_for_ends_its_own_request_only(
    engine: BatchingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = sampled(with_adapter("plus"), max_new_tokens=40)
    expected = generate(engine, request).text
    new_zeros: Any = torch.Tensor.new_zeros

    def limited(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if len(shape) == 3 and shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        found: torch.Tensor = new_zeros(tensor, shape)
        return found

    monkeypatch.setattr(torch.Tensor, "new_zeros", limited)
    listener = Listener()
    engine.submit(request, listener)
    listener.wait_for_text()
    with pytest.raises(EngineError, match="no memory for 2 adapters"):
        generate(engine, with_adapter("minus"))
    assert listener.result().text == expected
    assert engine.failure is None


def test_a_gpu_that_was_not_assigned_is_left_alone(
    settings: Settings, storage: Storage, hub_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    engine = BatchingEngine(TINY_ID, settings, num_gpus=0.0)
    try:
        assert engine.num_cpus == 1
    finally:
        engine.close()
