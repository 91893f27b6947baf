"""What can happen to a run on its way, and that it ends with the same adapter all the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.compute_threads import usable_cpus
from tests.computing import NEEDS_CPUS
from tests.integration.service import JOB_TIMEOUT_S, ROWS, Service, running_service, wait_for

OPTIONS: dict[str, Any] = {
    "num_epochs": 2, "batch_size": 2, "learning_rate": 0.001, "lora_dropout": 0.1, "seed": 7,
}  # fmt: skip
NUM_STEPS = 2 * 15


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory, hub_home: Path) -> Iterator[Service]:
    """A service whose runs write a checkpoint after every step."""
    with running_service(
        tmp_path_factory.mktemp("careful"),
        hub_home,
        SIENN_CHECKPOINT_INTERVAL_S="0.001",
        SIENN_REPORT_INTERVAL_S="0.05",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def dataset_id(careful: Service) -> str:
    return careful.upload(ROWS)


@pytest.fixture(scope="module")
def undisturbed(careful: Service, dataset_id: str) -> Any:
    """A run that nothing happens to."""
    return careful.wait_for_end(careful.start(dataset_id, **OPTIONS))


def weights_hash(job: Any) -> str:
    return hashlib.sha256((Path(job["meta"]["model_path"]) / "adapter_model.safetensors").read_bytes()).hexdigest()


def in_the_middle(service: Service, dataset_id: str) -> str:
    """Start the same run, and come back when it has done some steps."""
    job_id = service.start(dataset_id, **OPTIONS)
    service.wait_until(job_id, lambda job: (job["meta"].get("current_step") or 0) >= 5, "five steps")
    return job_id


def wait_for_status(service: Service, job_id: str, status: str) -> Any:
    def look() -> Any:
        job = service.status(job_id)
        return job if job["status"] == status and job["meta"].get("phase") not in {"stopping", "pausing"} else None

    return wait_for(look, f"status '{status}'", JOB_TIMEOUT_S)


def test_a_killed_worker(careful: Service, dataset_id: str, undisturbed: Any) -> None:
    """Without the kill this is a repetition, so it also shows that equal requests give equal adapters."""
    job_id = in_the_middle(careful, dataset_id)
    workers = careful.processes("ray::RayTrainWorker")
    assert len(workers) == 1
    workers[0].kill()
    done = careful.wait_for_end(job_id)
    assert weights_hash(done) == weights_hash(undisturbed)
    assert done["meta"]["loss_history"] == undisturbed["meta"]["loss_history"]
    assert done["meta"]["attempt"] == 1


def test_a_pause(careful: Service, dataset_id: str, undisturbed: Any) -> None:
    job_id = in_the_middle(careful, dataset_id)
    careful.post(f"/api/jobs/{job_id}/pause")
    paused = wait_for_status(careful, job_id, "paused")
    assert 5 <= paused["meta"]["current_step"] < NUM_STEPS
    assert careful.processes("ray::RayTrainWorker") == []
    careful.post(f"/api/jobs/{job_id}/resume")
    assert weights_hash(careful.wait_for_end(job_id)) == weights_hash(undisturbed)


def test_a_cancellation_that_is_taken_back(careful: Service, dataset_id: str, undisturbed: Any) -> None:
    job_id = in_the_middle(careful, dataset_id)
    careful.post(f"/api/jobs/{job_id}/cancel")
    wait_for_status(careful, job_id, "cancelled")
    kept = Path(careful.environment["SIENN_HOME"]) / "storage" / "checkpoints" / job_id
    assert list(kept.glob("checkpoint_*"))
    careful.post(f"/api/jobs/{job_id}/retry")
    done = careful.wait_for_end(job_id)
    assert weights_hash(done) == weights_hash(undisturbed)
    assert not kept.exists()


def test_two_workers_have_the_curve_of_one(careful: Service, dataset_id: str) -> None:
    """To 1e-4, the precision that losses are told with; dropout would differ."""
    options = {**OPTIONS, "lora_dropout": 0.0, "precision": "float32", "batch_size": 4}
    alone, together = (
        careful.wait_for_end(careful.start(dataset_id, **options, num_workers=number)) for number in (1, 2)
    )
    assert together["meta"]["num_workers"] == 2
    for one, two in zip(alone["meta"]["loss_history"], together["meta"]["loss_history"], strict=True):
        assert two == {name: pytest.approx(value, abs=2e-4) for name, value in one.items()}


def test_everything_to_repeat_a_run_is_with_the_adapter(careful: Service, dataset_id: str, undisturbed: Any) -> None:
    folder = Path(undisturbed["meta"]["model_path"])
    record = json.loads((folder / "training_run.json").read_text())
    assert record["datasets"][0]["sha256"] == hashlib.sha256(ROWS.encode()).hexdigest()
    assert record["config"]["seed"] == record["seed"] == 7
    assert record["base_model_revision"] == "0" * 40
    assert record["results"]["num_steps"] == NUM_STEPS
    assert {"torch", "transformers", "peft", "ray"} <= record["versions"].keys()
    assert (folder / "README.md").read_text().startswith("---\n")


@NEEDS_CPUS
def test_loop_computes_in_the_one_thread_with_workers_which_spin(undisturbed: Any) -> None:
    record = json.loads((Path(undisturbed["meta"]["model_path"]) / "training_run.json").read_text())
    assert record["resolved"]["threads_per_worker"] == usable_cpus()
    assert record["resolved"]["openmp_runtime"] == "libgomp"
    assert record["resolved"]["openmp_workers_spin"] is True


def test_more_rows_than_a_worker_tokenizes_itself(service: Service) -> None:
    """They come through Ray Data, each once in an epoch, on two workers."""
    rows = [json.dumps({"instruction": f"Number {number}?", "response": f"It is {number}."}) for number in range(1600)]
    dataset_id = service.upload("\n".join(rows))
    options = {"batch_size": 32, "gradient_accumulation_steps": 4, "validation_split": 0.0, "precision": "float32"}
    alone, together = (
        service.wait_for_end(service.start(dataset_id, num_epochs=1, num_workers=number, **options))["meta"]
        for number in (1, 2)
    )
    assert alone["num_train_rows"] == 1600
    assert alone["total_steps"] == 13
    assert together["num_tokens"] == alone["num_tokens"]
    for one, two in zip(alone["loss_history"], together["loss_history"], strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], abs=2e-4)


def test_preferences(careful: Service) -> None:
    rows = "\n".join(
        json.dumps({"prompt": f"Room {number}?", "chosen": f"It is {number}.", "rejected": "No idea, sorry."})
        for number in range(12)
    )
    dataset_id = careful.upload(rows, "preferences.jsonl")
    done = careful.wait_for_end(careful.start(dataset_id, num_epochs=5, learning_rate=0.001, validation_split=0.25))
    losses = [entry["eval_loss"] for entry in done["meta"]["loss_history"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)  # log 2: the base model prefers nothing to itself
    assert losses[-1] < 0.68


def test_a_dataset_that_is_all_prompt(careful: Service) -> None:
    rows = "\n".join(json.dumps({"instruction": "word " * 200 + str(i), "response": "no room"}) for i in range(4))
    job_id = careful.start(careful.upload(rows), max_length=128, num_epochs=1)
    job = wait_for_status(careful, job_id, "failed")
    assert job["meta"]["failure_reason"] == "invalid_dataset"
    assert "max_length=128" in job["message"]
