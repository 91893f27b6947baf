"""Fine-tunes over preferences: their methods, what is warned of, and starts from another job's adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.storage import Storage
from sienn_ray.training.config import LoraSettings, TrainingConfig
from tests.support.fakes_api import BASE_MODEL, dataset_record, job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import TINY_COMMIT
from tests.unit.api.starting import start

PARENT = "11111111-2222-4333-8444-555555555555"
LORA = LoraSettings(r=8, lora_alpha=64, target_modules=("q_proj", "v_proj"))


@pytest.fixture
def pairs(tracker: InProcessTracker) -> None:
    tracker.put(dataset_record(format="preference", num_rows=5000))


@pytest.fixture
def parent(tracker: InProcessTracker, storage: Storage, tmp_path: Path) -> JobRecord:
    """A completed job with an adapter in storage."""
    config = TrainingConfig(base_model=BASE_MODEL, base_model_revision=TINY_COMMIT, lora=LORA)
    job = job_record(id=PARENT, config=config, status=JobStatus.COMPLETED, lineage=("oldest",))
    tracker.put(job)
    publish(storage, job, tmp_path, PromptKind.CHAT)
    return job


def publish(storage: Storage, job: JobRecord, tmp_path: Path, kind: PromptKind) -> None:
    folder = tmp_path / kind.value
    folder.mkdir()
    (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat(kind, "{{ messages }}").to_json())
    storage.publish(folder, job.adapter_key)


def refused(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


@pytest.mark.usefixtures("pairs", "cached_base_model")
class TestMethods:
    @pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "orpo", "simpo"])
    def test_one_is_chosen_by_its_name(self, client: TestClient, tracker: InProcessTracker, method: str) -> None:
        assert start(client, method=method, learning_rate=1e-5).json()["warnings"] == []
        assert tracker.last_job.config.method == method

    def test_one_that_the_rows_are_not_for_is_refused(self, client: TestClient, tracker: InProcessTracker) -> None:
        words = refused(start(client, method="sft"), 400)
        assert words.startswith("method=sft learns from conversations or plain text, and the dataset has preferences; ")
        tracker.put(dataset_record())
        assert "method=orpo learns from preferences" in refused(start(client, method="orpo"), 400)

    def test_an_unknown_one_is_refused(self, client: TestClient) -> None:
        assert "kto" in refused(start(client, method="ppo"), 422)


@pytest.mark.usefixtures("pairs", "cached_base_model")
class TestWarnings:
    def test_a_learning_rate_of_sft_is_warned_of(self, client: TestClient, tracker: InProcessTracker) -> None:
        body = start(client).json()
        (words,) = body["warnings"]
        assert words.startswith("learning_rate=0.0002 is high for method=dpo")
        assert "lower it to 5e-05 or less" in words
        events = client.get(f"/api/jobs/{body['job_id']}/events").json()["events"]
        assert [event["message"] for event in events if event["kind"] == "warning"] == [words]

    def test_few_rows_are_warned_of(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(format="preference", num_rows=12))
        (words,) = start(client, learning_rate=2e-5).json()["warnings"]
        assert words.startswith("12 rows are few to learn preferences from")

    def test_hyperparameters_of_another_method_are_warned_of(self, client: TestClient) -> None:
        (words,) = start(client, learning_rate=2e-5, method="ipo", dpo_beta=0.2, simpo_beta=2.0).json()["warnings"]
        assert words.startswith("method=ipo doesn't read dpo_beta, simpo_beta; ")

    def test_kto_without_a_baseline_is_warned_of(self, client: TestClient) -> None:
        (words,) = start(client, learning_rate=2e-5, method="kto", batch_size=1).json()["warnings"]
        assert words.startswith("batch_size=1 with gradient_accumulation_steps=1 leaves KTO without a baseline")

    def test_sft_has_none_of_these(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(num_rows=3))
        assert start(client).json()["warnings"] == []


@pytest.mark.usefixtures("pairs", "cached_base_model")
class TestStartFromAJob:
    def test_base_model_commit_and_shape_are_that_job_s(
        self, client: TestClient, tracker: InProcessTracker, parent: JobRecord
    ) -> None:
        response = start(client, from_job=PARENT, learning_rate=2e-5, lora_dropout=0.1)
        assert response.status_code == 201, response.text
        job = tracker.last_job
        assert job.config.base_model == BASE_MODEL
        assert job.config.base_model_revision == TINY_COMMIT
        assert job.config.lora == LORA.model_copy(update={"lora_dropout": 0.1})
        assert job.config.learning_rate == 2e-5
        assert job.start_key == parent.adapter_key
        meta = client.get(f"/api/jobs/{job.id}").json()["meta"]
        assert (meta["from_job"], meta["lineage"]) == (PARENT, ["oldest", PARENT])
        assert (meta["hyperparameters"]["lora_r"], meta["model_name"]) == (8, BASE_MODEL)

    @pytest.mark.usefixtures("parent")
    def test_what_is_said_as_it_is_there_is_taken(self, client: TestClient) -> None:
        fields: dict[str, Any] = {
            "lora_r": 8,
            "target_modules": ["v_proj", "q_proj"],
            "model_name": BASE_MODEL,
            "use_dora": False,
        }
        assert start(client, from_job=PARENT, **fields).status_code == 201

    @pytest.mark.usefixtures("parent")
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"lora_r": 16}, "lora_r is 16, and in from_job=11111111-2222-4333-8444-555555555555 it is 8"),
            ({"lora_alpha": 32}, "lora_alpha is 32, and in"),
            ({"target_modules": "all-linear"}, "target_modules is all-linear, and in"),
            ({"use_dora": True}, "use_dora is True, and in"),
            ({"use_rslora": True}, "use_rslora is True, and in"),
            ({"quantization": "nf4"}, "quantization is nf4, and in"),
            ({"model_name": "owner/other"}, "model_name is owner/other, and in"),
        ],
    )
    def test_another_shape_is_refused(
        self, client: TestClient, tracker: InProcessTracker, fields: dict[str, Any], words: str
    ) -> None:
        before = tracker.num_records
        found = refused(start(client, from_job=PARENT, **fields), 400)
        assert found.startswith(words)
        assert f"leave {next(iter(fields))} out" in found
        assert tracker.num_records == before

    def test_what_does_not_go_with_what_it_hands_down_is_refused(
        self, client: TestClient, tracker: InProcessTracker, parent: JobRecord
    ) -> None:
        tracker.put(parent.model_copy(update={"config": parent.config.model_copy(update={"quantization": "nf4"})}))
        words = refused(start(client, from_job=PARENT, sharding="always"), 400)
        assert words.startswith(f"from_job={PARENT} hands down quantization=nf4, and that doesn't go with")

    @pytest.mark.usefixtures("parent")
    def test_a_default_that_is_asked_for_is_another_request(self, client: TestClient) -> None:
        headers = {"Idempotency-Key": "one"}
        assert start(client, headers=headers, from_job=PARENT).status_code == 201
        assert start(client, headers=headers, from_job=PARENT).headers["Idempotent-Replayed"] == "true"
        assert start(client, headers=headers, from_job=PARENT, lora_r=16).status_code == 409

    def test_another_commit_is_refused(self, client: TestClient, tracker: InProcessTracker, parent: JobRecord) -> None:
        other = parent.config.model_copy(update={"base_model_revision": None})
        tracker.put(parent.model_copy(update={"config": other}))
        assert start(client, from_job=PARENT).status_code == 201  # an earlier job, whose commit isn't known
        other = parent.config.model_copy(update={"base_model_revision": "1" * 40})
        tracker.put(parent.model_copy(update={"config": other}))
        words = refused(start(client, from_job=PARENT, revision=TINY_COMMIT), 400)
        assert words.startswith(f"from_job={PARENT} was trained on commit {'1' * 40} of {BASE_MODEL}")

    @pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.COMPLETED])
    def test_a_job_without_an_adapter_is_refused(
        self, client: TestClient, tracker: InProcessTracker, parent: JobRecord, status: JobStatus
    ) -> None:
        tracker.put(parent.model_copy(update={"status": status}))
        assert f"from_job={PARENT} is '{status}'" in refused(start(client, from_job=PARENT), 400)

    def test_an_adapter_that_is_gone_is_refused(self, client: TestClient, storage: Storage, parent: JobRecord) -> None:
        storage.delete(parent.adapter_key)
        assert "isn't in storage any more" in refused(start(client, from_job=PARENT), 400)

    def test_another_kind_of_prompts_is_refused(
        self, client: TestClient, tracker: InProcessTracker, storage: Storage, parent: JobRecord, tmp_path: Path
    ) -> None:
        publish(storage, parent, tmp_path, PromptKind.TEXT)
        words = refused(start(client, from_job=PARENT), 400)
        assert f"from_job={PARENT} was trained on plain text, and the dataset has preferences" in words

    def test_an_unknown_job_is_not_found(self, client: TestClient) -> None:
        assert refused(start(client, from_job=PARENT), 404) == f"Job {PARENT} not found"
        assert refused(start(client, from_job="../x"), 404) == "Job ../x not found"

    @pytest.mark.usefixtures("parent")
    def test_an_adapter_that_a_job_is_to_start_from_stays(self, client: TestClient) -> None:
        job_id = start(client, from_job=PARENT).json()["job_id"]
        words = refused(client.delete(f"/api/jobs/{PARENT}"), 409)
        assert words.startswith(f"Job {job_id} starts from the adapter of job {PARENT} and is 'pending'")
        client.post(f"/api/jobs/{job_id}/cancel")
        assert client.delete(f"/api/jobs/{PARENT}").status_code == 200
        assert client.get(f"/api/jobs/{job_id}").json()["meta"]["from_job"] == PARENT
