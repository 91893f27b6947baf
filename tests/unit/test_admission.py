"""What of the hub is refused before anything large is downloaded, and never as an internal error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sienn_ray import catalog
from sienn_ray.admission import MAX_CONFIG_BYTES, AdmissionRules
from sienn_ray.base_model import local_folder
from sienn_ray.errors import InvalidBaseModelError, StorageFullError
from sienn_ray.settings import GIB, Settings
from tests.support.fakes_hub import FakeHub
from tests.unit.conftest import AddToCache

pytestmark = pytest.mark.usefixtures("hub_home")

MODEL = "owner/model"
PACKAGED = "HuggingFaceTB/SmolLM2-135M-Instruct"
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
TIMEOUT_S = 5.0


@pytest.fixture
def on_hub(hub: FakeHub) -> FakeHub:
    hub.files[MODEL] = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors": b"w"}
    return hub


@pytest.mark.parametrize("allowed", [(), (MODEL,), ("owner/*",), ("other/x", "owner/mod?l"), ("*",)])
@pytest.mark.usefixtures("on_hub")
def test_allowed_models_are_found(allowed: tuple[str, ...]) -> None:
    catalog.resolve(MODEL, TIMEOUT_S, rules=AdmissionRules(allowed))


@pytest.mark.parametrize("base_model", [MODEL, PACKAGED])
def test_a_model_that_is_not_allowed_is_not_even_looked_for(base_model: str, on_hub: FakeHub, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, allowed_base_models="Qwen/*, owner/other")
    with pytest.raises(
        InvalidBaseModelError, match=rf"'{base_model}' isn't allowed here; choose one of Qwen/\*, owner/other, or ask"
    ):
        local_folder(base_model, settings)
    assert on_hub.num_requests == 0


def test_ids_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIENN_ALLOWED_BASE_MODELS", "Qwen/*, owner/model")
    assert Settings().allowed_base_models == ("Qwen/*", MODEL)


def test_a_large_model_is_refused_before_it_is_downloaded(on_hub: FakeHub, tmp_path: Path) -> None:
    on_hub.sizes = {"model.safetensors": 400 * GIB}
    with pytest.raises(InvalidBaseModelError, match=r"has 429\.5 GB, and at most 214\.7 GB are taken"):
        local_folder(MODEL, Settings(home=tmp_path))


def test_only_what_is_loaded_counts(on_hub: FakeHub) -> None:
    on_hub.files[MODEL]["pytorch_model.bin"] = b""
    on_hub.sizes = {"pytorch_model.bin": 400 * GIB}
    found = catalog.resolve(MODEL, TIMEOUT_S, rules=AdmissionRules(max_bytes=GIB))
    assert found.size_bytes == len(on_hub.files[MODEL]["config.json"]) + 1


def test_a_model_without_room_on_the_disk_is_not_begun(on_hub: FakeHub, tmp_path: Path) -> None:
    on_hub.sizes = {"model.safetensors": 2**60}
    with pytest.raises(StorageFullError, match="GB left for base models; free some, or set HF_HOME"):
        local_folder(MODEL, Settings(home=tmp_path, max_base_model_bytes=2**61))


@pytest.mark.parametrize("is_cached", [True, False])
def test_an_adapter_is_no_base_model(add_to_cache: AddToCache, on_hub: FakeHub, is_cached: bool) -> None:
    files = {**on_hub.files[MODEL], "adapter_config.json": b"{}"}
    if is_cached:
        add_to_cache(MODEL, files)
    else:
        on_hub.files[MODEL] = files
    with pytest.raises(InvalidBaseModelError, match=r"holds an adapter .adapter_config\.json."):
        catalog.resolve(MODEL, TIMEOUT_S)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({**LLAMA, "architectures": 5}).encode(),
        json.dumps({**LLAMA, "architectures": {"a": 1}}).encode(),
        json.dumps({**LLAMA, "model_type": ["llama"]}).encode(),
        json.dumps({**LLAMA, "architectures": ["x" * 100_000]}).encode(),
    ],
    ids=lambda config: repr(config)[:30],
)
@pytest.mark.parametrize("is_cached", [True, False])
def test_a_configuration_of_another_shape_is_refused(
    add_to_cache: AddToCache, on_hub: FakeHub, config: bytes, is_cached: bool
) -> None:
    files = {"config.json": config, "model.safetensors": b"w"}
    if is_cached:
        add_to_cache(MODEL, files)
    else:
        on_hub.files[MODEL] = files
    with pytest.raises(InvalidBaseModelError) as caught:
        catalog.resolve(MODEL, TIMEOUT_S)
    assert MODEL in caught.value.message
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("said", [MAX_CONFIG_BYTES + 1, 10])
def test_a_huge_configuration_is_not_read(on_hub: FakeHub, said: int) -> None:
    config: dict[str, Any] = {**LLAMA, "padding": "x" * MAX_CONFIG_BYTES}
    on_hub.files[MODEL]["config.json"] = json.dumps(config).encode()
    on_hub.sizes = {"config.json": said}
    with pytest.raises(InvalidBaseModelError, match=f"bytes, and at most {MAX_CONFIG_BYTES} are read"):
        catalog.resolve(MODEL, TIMEOUT_S)
    assert on_hub.num_requests == 1 or said == 10


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"weight_map": 5}', b'{"weight_map": {"a": {}}}'])
def test_an_index_of_another_shape_is_refused(add_to_cache: AddToCache, index: bytes) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors.index.json": index})
    with pytest.raises(InvalidBaseModelError, match="is no index of weights"):
        catalog.resolve(MODEL, TIMEOUT_S)
