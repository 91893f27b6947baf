"""Adapters: many beside one base model, loaded and evicted, and bad ones that harm no other request."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.errors import ArtifactError, EngineError, SiennError
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import Engine
from sienn_ray.storage import Storage
from sienn_ray.training.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.support.tiny_model import TINY_ID
from tests.unit.inference.asking import GREEDY, Listener, copy_of, edit_config, sampled, with_adapter
from tests.unit.inference.conformance.conftest import Start

MIXED = [with_adapter("plus"), with_adapter("minus"), GREEDY]


class TestManyAtOnce:
    def test_opposite_adapters_and_the_base_model_never_mix(
        self, engine: Engine, expected: Callable[[str | None], str]
    ) -> None:
        wanted = [expected(request.adapter_id) for request in MIXED]
        assert len(set(wanted)) == 3
        with ThreadPoolExecutor(max_workers=6) as pool:
            texts = list(pool.map(lambda request: generate(engine, request).text, MIXED * 6))
        assert texts == wanted * 6

    def test_they_never_mix_while_they_are_loaded_and_evicted(
        self, start: Start, expected: Callable[[str | None], str]
    ) -> None:
        engine = start(adapter_cache_max_count=1)
        with ThreadPoolExecutor(max_workers=6) as pool:
            texts = list(pool.map(lambda request: generate(engine, request).text, MIXED * 3))
        assert texts == [expected(request.adapter_id) for request in MIXED] * 3


class TestCache:
    def test_second_request_loads_nothing(self, engine: Engine) -> None:
        results = [generate(engine, with_adapter("plus")) for _ in range(3)]
        assert [result.adapter_cached for result in results] == [False, True, True]
        assert engine.num_adapters == 1

    def test_adapter_that_was_loaded_ahead_is_there(self, engine: Engine) -> None:
        engine.load_adapter("plus", "adapters/plus")
        assert engine.num_adapters == 1
        assert generate(engine, with_adapter("plus")).adapter_cached

    def test_base_model_loads_nothing(self, engine: Engine) -> None:
        assert generate(engine, GREEDY).adapter_cached
        assert engine.num_adapters == 0

    def test_least_recently_used_adapter_is_evicted_first(self, start: Start) -> None:
        engine = start(adapter_cache_max_count=2)
        order = ["plus", "minus", "plus", "half", "plus", "minus", "half"]
        is_cached = [generate(engine, with_adapter(name)).adapter_cached for name in order]
        assert is_cached == [False, False, True, False, True, False, False]
        assert engine.num_adapters == 2

    def test_bytes_of_loaded_adapters_are_bounded(self, start: Start, adapter_folders: dict[str, Path]) -> None:
        one_adapter = sum(tensor.nbytes for tensor in load_file(adapter_folders["plus"] / ADAPTER_WEIGHTS).values())
        engine = start(adapter_cache_max_bytes=one_adapter * 3 // 2)
        for name in ("plus", "minus", "plus"):
            assert not generate(engine, with_adapter(name)).adapter_cached
        assert engine.num_adapters == 1

    def test_adapter_over_the_limit_is_refused_and_harms_nothing(self, start: Start) -> None:
        engine = start(adapter_cache_max_bytes=1_000)
        base = generate(engine, GREEDY).text
        for _ in range(2):
            with pytest.raises(EngineError, match="SIENN_ADAPTER_CACHE_MAX_BYTES"):
                generate(engine, with_adapter("plus"))
            assert generate(engine, GREEDY).text == base


def alter(storage: Storage, folder: Path) -> None:
    """Publish, and change a bit of the weights afterwards."""
    # Other bytes than the good one has, of which there may be a copy on this machine already.
    (folder / "README.md").write_text("altered")
    storage.publish(folder, "adapters/bad")
    weights = bytearray(storage.read_bytes(f"adapters/bad/{ADAPTER_WEIGHTS}"))
    weights[-1] ^= 1
    storage.write_bytes(f"adapters/bad/{ADAPTER_WEIGHTS}", bytes(weights))


def publish(change: Callable[[Path], object]) -> Callable[[Storage, Path], None]:
    """Change the files, then publish."""

    def spoil(storage: Storage, folder: Path) -> None:
        change(folder)
        storage.publish(folder, "adapters/bad")

    return spoil


def overwrite_weights(content: bytes, folder: Path) -> None:
    (folder / ADAPTER_WEIGHTS).write_bytes(content)


def divide_by_zero(folder: Path) -> None:
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name][0, 0] = float("inf")
    save_file(tensors, folder / ADAPTER_WEIGHTS)


BAD: dict[str, tuple[Callable[[Storage, Path], None], type[SiennError], str]] = {
    "not there": (
        lambda storage, folder: None,
        ArtifactError,
        "adapters/bad/manifest.json is missing from storage",
    ),
    "altered weights": (alter, ArtifactError, "SHA-256 .* the file was altered"),
    "another base model": (
        publish(lambda folder: edit_config(folder, base_model_name_or_path="other/model")),
        EngineError,
        f"^adapters/bad: the adapter was trained on 'other/model', this engine holds '{TINY_ID}'$",
    ),
    "not a LoRA": (publish(lambda folder: edit_config(folder, peft_type="IA3")), EngineError, "type IA3"),
    "infinite weights": (publish(divide_by_zero), EngineError, "^adapters/bad: .* aren't all finite numbers"),
    "no weights": (
        publish(lambda folder: (folder / ADAPTER_WEIGHTS).unlink()),
        ArtifactError,
        "adapter_model.safetensors can't be read; other formats aren't loaded",
    ),
    "no configuration": (
        publish(lambda folder: (folder / ADAPTER_CONFIG).unlink()),
        ArtifactError,
        "adapter_config.json can't be read",
    ),
    "no prompt format": (
        publish(lambda folder: (folder / PROMPT_FORMAT_FILE).unlink()),
        ArtifactError,
        "has no prompt_format.json",
    ),
    "pickled weights": (
        publish(lambda folder: (folder / ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")),
        ArtifactError,
        "other formats aren't loaded",
    ),
    **{
        f"weights of {content!r}": (
            publish(partial(overwrite_weights, content)),
            ArtifactError,
            "^adapters/bad: adapter_model.safetensors can't be read",
        )
        for content in (b"", b"no safetensors", b"\xff" * 100)
    },
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_adapter_is_refused_each_time_and_harms_no_other_request(
    engine: Engine,
    expected: Callable[[str | None], str],
    storage: Storage,
    adapter_folders: dict[str, Path],
    tmp_path: Path,
    fault: str,
) -> None:
    spoil, error, match = BAD[fault]
    spoil(storage, copy_of(adapter_folders["plus"], tmp_path))
    others = {request.adapter_id: Listener() for request in MIXED}
    for request in MIXED:
        engine.submit(request, others[request.adapter_id])
        with pytest.raises(error, match=match):
            generate(engine, with_adapter("bad"))
    for adapter_id, listener in others.items():
        assert listener.result().text == expected(adapter_id)
    with pytest.raises(error, match=match):
        engine.load_adapter("bad", "adapters/bad")
    assert generate(engine, sampled(with_adapter("minus"))).adapter_cached
    assert engine.num_adapters == 2
