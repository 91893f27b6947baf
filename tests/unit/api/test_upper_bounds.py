"""Bounds that an operator has raised hold, and are said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.upper_bounds import upper_bounds_of
from tests.support.fakes_api import BASE_MODEL, dataset_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker

RAISED = {"num_epochs": 20, "batch_size": 64, "max_length": 8192}
SETTINGS = {"max_num_epochs": 20, "max_batch_size": 64, "max_row_tokens": 8192}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update=SETTINGS)


def schema(document: dict[str, Any], field: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]["StartFinetuningRequest"]["properties"][field]
    return found


def test_all_three_can_be_raised() -> None:
    assert set(upper_bounds_of(TrainingConfig)) == set(RAISED)


@pytest.fixture
def long_context(hub_cache: Path, cached_base_model: str) -> None:
    """Have the base model read as much as the service takes."""
    (config,) = hub_cache.glob("hub/*/snapshots/*/config.json")
    changed = {**json.loads(config.read_text()), "max_position_embeddings": RAISED["max_length"]}
    config.unlink()
    config.write_text(json.dumps(changed))


@pytest.mark.usefixtures("long_context")
@pytest.mark.parametrize("field", RAISED)
def test_a_bound_that_was_raised_is_the_bound(client: TestClient, tracker: InProcessTracker, field: str) -> None:
    tracker.put(dataset_record())
    body = {"dataset_id": "dataset-1", "model_name": BASE_MODEL}
    taken = client.post("/api/start-finetuning", json={**body, field: RAISED[field]})
    assert taken.status_code == 201, taken.text
    assert getattr(tracker.last_job.config, field) == RAISED[field]
    for too_much in (RAISED[field] + 1, 10**30):
        refused = client.post("/api/start-finetuning", json={**body, field: too_much})
        assert refused.status_code == 422
        words = f"{field}: has to be less than or equal to {RAISED[field]}, unless who runs the service raises SIENN_"
        assert refused.json()["detail"].startswith(words)


def test_the_document_says_what_holds_here(client: TestClient, tmp_path: Any) -> None:
    default = create_app(fake_backends(Settings(env="test", home=tmp_path))).openapi()
    raised = client.get("/openapi.json").json()
    assert {field: schema(default, field)["maximum"] for field in RAISED} == {
        "num_epochs": 10,
        "batch_size": 32,
        "max_length": 2048,
    }
    assert {field: schema(raised, field)["maximum"] for field in RAISED} == RAISED
    assert schema(raised, "num_epochs")["x-setting"] == "SIENN_MAX_NUM_EPOCHS"
    (query,) = [
        each
        for each in raised["paths"]["/api/datasets/{dataset_id}/statistics"]["get"]["parameters"]
        if each["name"] == "max_length"
    ]
    assert query["schema"]["maximum"] == 8192


@pytest.mark.usefixtures("cached_base_model")
def test_statistics_take_the_same_length(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(dataset_record())
    url = "/api/datasets/dataset-1/statistics"
    assert client.get(url, params={"max_length": 8192, "model_name": BASE_MODEL}).status_code == 200
    refused = client.get(url, params={"max_length": 8193, "model_name": BASE_MODEL})
    assert (refused.status_code, "max_length: has to be" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_bound_falls_below_the_reference_s(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.model_validate({name: Settings.model_fields[name].default - 1})
