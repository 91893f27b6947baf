"""Starts of fine-tunes with a full queue, a validation dataset, or a base model that isn't there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.starting import start


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestFullQueue:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(env="test", home=tmp_path / "home", max_pending_jobs=1)

    def test_it_says_when_to_come_back(self, client: TestClient) -> None:
        assert start(client).status_code == 201
        response = start(client)
        assert (response.status_code, response.headers["retry-after"]) == (429, "60")
        assert "1 jobs wait already" in response.json()["detail"]


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestValidationDataset:
    def test_reaches_the_job_and_nothing_is_held_out(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(id="dataset-2"))
        job_id = start(client, validation_dataset_id="dataset-2").json()["job_id"]
        assert tracker.last_job.validation_dataset_id == "dataset-2"
        meta = client.get(f"/api/jobs/{job_id}").json()["meta"]
        assert (meta["validation_dataset_id"], meta["hyperparameters"]["validation_split"]) == ("dataset-2", 0.0)

    def test_rows_that_are_trained_on_are_told(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(id="dataset-2", version=2, version_of="dataset-1", sha256="2" * 64))
        (words,) = (
            words
            for words in start(client, validation_dataset_id="dataset-2").json()["warnings"]
            if words.startswith("validation dataset")
        )
        assert "are versions 2 and 1 of one dataset" in words

    def test_null_is_none(self, client: TestClient, tracker: InProcessTracker) -> None:
        assert start(client, validation_dataset_id=None, validation_split=0.2).status_code == 201
        assert tracker.last_job.config.validation_split == 0.2

    @pytest.mark.parametrize("validation_split", [0.1, 0.0, 0.3])
    def test_excludes_a_split(self, client: TestClient, tracker: InProcessTracker, validation_split: float) -> None:
        tracker.put(dataset_record(id="dataset-2"))
        response = start(client, validation_dataset_id="dataset-2", validation_split=validation_split)
        assert response.status_code == 422
        assert "validation_split and validation_dataset_id exclude each other" in response.json()["detail"]

    @pytest.mark.parametrize("dataset_id", ["other", "no/id"])
    def test_unknown(self, client: TestClient, dataset_id: str) -> None:
        response = start(client, validation_dataset_id=dataset_id)
        assert (response.status_code, response.json()["detail"]) == (404, f"Dataset {dataset_id} not found")

    def test_is_another_one(self, client: TestClient) -> None:
        response = start(client, validation_dataset_id="dataset-1")
        assert response.status_code == 400
        assert response.json()["detail"].startswith("validation_dataset_id is dataset_id; name another dataset")

    @pytest.mark.parametrize(("validation_format", "status"), [("text", 400), ("chat", 201)])
    def test_is_of_the_same_kind(
        self, client: TestClient, tracker: InProcessTracker, validation_format: str, status: int
    ) -> None:
        tracker.put(dataset_record(id="dataset-2", format=validation_format))
        response = start(client, validation_dataset_id="dataset-2")
        assert response.status_code == status
        if status == 400:
            assert "format is 'instruction-response' and the validation dataset's is 'text'" in response.text

    def test_two_plain_texts(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(format="text"), dataset_record(id="dataset-2", format="text"))
        assert start(client, validation_dataset_id="dataset-2").status_code == 201


@pytest.mark.usefixtures("dataset", "hub_cache")
class TestBaseModel:
    def test_unknown_id_offline_shows_a_way_out(self, client: TestClient, tracker: InProcessTracker) -> None:
        response = start(client, model_name="nobody/nothing")
        detail = response.json()["detail"]
        assert response.status_code == 400
        assert detail.startswith("base model 'nobody/nothing' is not in the local cache and the hub can't be reached")
        assert re.search(r"Choose one that is here as model_name: .*HuggingFaceTB/SmolLM2-135M-Instruct", detail)
        assert tracker.num_records == 1

    def test_cached_model_is_named_as_the_way_out(self, client: TestClient, cached_base_model: str) -> None:
        assert cached_base_model in start(client, model_name="nobody/nothing").json()["detail"]

    def test_packaged_model_needs_no_hub(self, client: TestClient) -> None:
        assert start(client, model_name="HuggingFaceTB/SmolLM2-135M-Instruct").status_code == 201

    @pytest.mark.parametrize(
        "model_name",
        [
            "",
            "/etc/passwd",
            "../models/mine",
            "~/model",
            "C:\\model",
            "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct",
            "file:///model",
            "a/b/c",
            "owner/name@main",
            "owner/na me",
            "owner/name\n",
            "owner/..",
            "owner/model.gguf",
            "o" * 97,
        ],
    )
    def test_path_or_url_is_no_id(self, client: TestClient, tracker: InProcessTracker, model_name: str) -> None:
        response = start(client, model_name=model_name)
        assert response.status_code == 400
        assert "is not a model id; give a hub id" in response.json()["detail"]
        assert len(response.json()["detail"]) < 500
        assert tracker.num_records == 1

    def test_folder_of_that_name_is_not_taken(
        self, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
    ) -> None:
        (tmp_path / "owner").mkdir()
        (tmp_path / "owner" / "name").symlink_to(tiny_model_folder)
        monkeypatch.chdir(tmp_path)
        assert start(client, model_name="owner/name").status_code == 400
