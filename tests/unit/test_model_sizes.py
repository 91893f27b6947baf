"""Sizes of base models, from files here, from configurations, and from the hub's headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from sienn_ray import catalog, model_sizes
from sienn_ray.model_sizes import ModelSizes, sizes_of_config
from sienn_ray.settings import Settings
from tests.support.fakes_hub import FakeHub
from tests.unit.conftest import AddToCache

MODEL = "owner/model"
LLAMA = {"hidden_size": 8, "vocab_size": 100, "intermediate_size": 16, "num_hidden_layers": 2}


def header(**shapes: list[int]) -> bytes:
    """A safetensors file: its header, and the values that it promises."""
    entries: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * shape[0] * shape[1]
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    content = json.dumps(entries).encode()
    return struct.pack("<Q", len(content)) + content + bytes(end)


@pytest.fixture
def settings(tmp_path: Path, hub_home: Path) -> Settings:
    model_sizes._hub_sizes.cache_clear()
    return Settings(env="test", home=tmp_path / "home")


def test_files_in_the_cache_are_exact(settings: Settings, add_to_cache: AddToCache) -> None:
    weights = header(embed=[100, 8], head=[8, 8])
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": weights})
    assert model_sizes.model_sizes(MODEL, settings) == ModelSizes(total=864, largest=800)


def test_files_that_are_none_are_passed_over(settings: Settings, add_to_cache: AddToCache) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"w"})
    assert model_sizes.model_sizes(MODEL, settings) == sizes_of_config(LLAMA)


def test_a_configuration_without_weights_gives_an_estimate(settings: Settings, add_to_cache: AddToCache) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA})
    assert model_sizes.model_sizes(MODEL, settings) == sizes_of_config(LLAMA)


def test_the_hub_tells_what_is_not_here(settings: Settings, hub: FakeHub) -> None:
    hub.files[MODEL] = {"model.safetensors": header(embed=[100, 8], head=[8, 8])}
    assert model_sizes.model_sizes(MODEL, settings) == ModelSizes(total=864, largest=800)
    num_requests = hub.num_requests
    assert model_sizes.model_sizes(MODEL, settings) is not None
    assert hub.num_requests == num_requests


@pytest.mark.usefixtures("offline")
def test_a_hub_that_is_away_tells_nothing(settings: Settings) -> None:
    assert model_sizes.model_sizes(MODEL, settings) is None


def test_a_model_that_the_hub_does_not_have_tells_nothing(settings: Settings, hub: FakeHub) -> None:
    assert model_sizes.model_sizes(MODEL, settings) is None


def test_a_package_is_rather_too_large(settings: Settings) -> None:
    packaged = catalog.PACKAGED["HuggingFaceTB/SmolLM2-135M-Instruct"]
    if packaged.folder() is None:
        pytest.skip("the package isn't installed")
    found = model_sizes.model_sizes("HuggingFaceTB/SmolLM2-135M-Instruct", settings)
    assert found is not None
    assert 134_000_000 < found.total < 400_000_000


@pytest.mark.parametrize(
    ("config", "least"),
    [
        # Qwen 2.5 0.5B; GPT-2; Mixtral 8x7B.
        (
            {"hidden_size": 896, "vocab_size": 151936, "intermediate_size": 4864, "num_hidden_layers": 24},
            494_032_768,
        ),
        ({"n_embd": 768, "vocab_size": 50257, "n_layer": 12, "n_inner": None}, 124_439_808),
        (
            {
                "hidden_size": 4096,
                "vocab_size": 32000,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_local_experts": 8,
            },
            46_702_792_704,
        ),
    ],
)
def test_estimates_are_never_too_small(config: dict[str, Any], least: int) -> None:
    found = sizes_of_config(config)
    assert found is not None
    assert least <= found.total < 2 * least


@pytest.mark.parametrize("config", [{}, {"hidden_size": "8"}, {"hidden_size": 8}, {"vocab_size": 8}])
def test_a_configuration_without_sizes_gives_none(config: dict[str, Any]) -> None:
    assert sizes_of_config(config) is None
