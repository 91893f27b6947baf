from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sienn_ray.catalog import CATALOG
from tests.support.fakes_api import BASE_MODEL

FIELDS = {
    "id": str,
    "name": str,
    "vram_required_gb": int,
    "quality_rating": int,
    "speed_rating": int,
    "batch_size": int,
    "max_length": int,
    "learning_rate": float,
    "description": str,
    "is_cached": bool,
}


@pytest.mark.usefixtures("hub_cache")
def test_every_model_has_the_fields_of_the_contract(client: TestClient) -> None:
    response = client.get("/api/models/available")
    assert response.status_code == 200
    models = response.json()["models"]
    assert {model["id"] for model in models} == {entry.id for entry in CATALOG}
    needs = [model["vram_required_gb"] for model in models]
    assert needs == sorted(needs)
    for model in models:
        assert set(model) == {*FIELDS, "cache_size_bytes"}
        assert [name for name, kind in FIELDS.items() if not isinstance(model[name], kind)] == []
        assert 1 <= model["quality_rating"] <= 5
        assert 1 <= model["speed_rating"] <= 5


@pytest.mark.usefixtures("hub_cache")
def test_example_of_the_contract_is_there(client: TestClient) -> None:
    models = client.get("/api/models/available").json()["models"]
    (model,) = (model for model in models if model["id"] == BASE_MODEL)
    expected = {
        "id": BASE_MODEL,
        "name": "Qwen 2.5 0.5B (Ultra Light)",
        "vram_required_gb": 2,
        "quality_rating": 3,
        "speed_rating": 5,
        "batch_size": 8,
        "max_length": 1024,
        "learning_rate": 0.0003,
        "is_cached": False,
        "cache_size_bytes": None,
    }
    assert expected.items() <= model.items()


def test_cached_model_says_how_large_it_is(client: TestClient, cached_base_model: str, tiny_model_folder: Path) -> None:
    models = {model["id"]: model for model in client.get("/api/models/available").json()["models"]}
    size_bytes = sum(path.stat().st_size for path in tiny_model_folder.iterdir())
    assert (models[cached_base_model]["is_cached"], models[cached_base_model]["cache_size_bytes"]) == (True, size_bytes)


def test_model_without_all_its_weights_is_not_cached(
    client: TestClient, cached_base_model: str, hub_cache: Path
) -> None:
    (weights,) = hub_cache.rglob("model.safetensors")
    weights.unlink()
    models = {model["id"]: model for model in client.get("/api/models/available").json()["models"]}
    assert (models[cached_base_model]["is_cached"], models[cached_base_model]["cache_size_bytes"]) == (False, None)


@pytest.mark.usefixtures("hub_cache")
def test_packaged_model_counts_as_cached(client: TestClient) -> None:
    models = {model["id"]: model for model in client.get("/api/models/available").json()["models"]}
    packaged = models["HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert packaged["is_cached"]
    assert packaged["cache_size_bytes"] > 50_000_000
