"""What can happen to a run on its way, and that it ends with the same adapter all the same."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sienn_ray.compute_threads import usable_cpus
from tests.integration.programs import programs_of
from tests.integration.runs import UNDISTURBED
from tests.integration.service import JOB_TIMEOUT_S, REQUEST_TIMEOUT_S, ROWS, Service, wait_for
from tests.support.computing import NEEDS_CPUS

NUM_STEPS = 2 * 15
GONE_TIMEOUT_S = 60.0


def weights_hash(job: Any) -> str:
    return hashlib.sha256((Path(job["meta"]["model_path"]) / "adapter_model.safetensors").read_bytes()).hexdigest()


def in_the_middle(service: Service, dataset_id: str) -> str:
    """Start the same run, and come back when it has done some steps."""
    job_id = service.start(dataset_id, **UNDISTURBED)
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
    # The epochs before the kill are there once: they weren't trained again.
    assert [record["epoch"] for record in done["meta"]["loss_history"]] == [0, 1, 2]
    assert done["meta"]["loss_history"] == undisturbed["meta"]["loss_history"]
    assert done["meta"]["attempt"] == 1
    assert "Resuming after epoch" in careful.log_of(job_id)


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
    started = time.monotonic()
    assert careful.post(f"/api/jobs/{job_id}/cancel")["status"] == "cancelled"
    assert time.monotonic() - started < 5
    wait_for(lambda: not careful.processes("ray::RayTrainWorker"), "the end of its workers", GONE_TIMEOUT_S)
    wait_for(lambda: not programs_of(careful, job_id), "the end of its program", GONE_TIMEOUT_S)
    wait_for(lambda: careful.status(job_id)["meta"]["phase"] == "cancelled", "the end of its Ray job", GONE_TIMEOUT_S)
    kept = careful.storage / "checkpoints" / job_id
    assert list(kept.glob("checkpoint_*"))

    assert careful.post(f"/api/jobs/{job_id}/retry")["status"] == "pending"
    done = careful.wait_for_end(job_id)
    assert done["meta"]["attempt"] == 2
    assert [record["epoch"] for record in done["meta"]["loss_history"]] == [0, 1, 2]
    assert weights_hash(done) == weights_hash(undisturbed)
    assert "Resuming after epoch" in careful.log_of(job_id)
    kinds = [event["kind"] for event in careful.events(job_id)]
    assert "failed" not in kinds
    assert kinds.index("cancelled") < kinds.index("retried") < kinds.index("completed")
    wait_for(lambda: not kept.exists(), "the end of its checkpoints", 10.0)

    response = httpx2.delete(f"{careful.url}/api/jobs/{job_id}", timeout=30.0)
    assert response.json() == {"job_id": job_id, "deleted": True}
    assert httpx2.get(f"{careful.url}/api/jobs/{job_id}", timeout=REQUEST_TIMEOUT_S).status_code == 404
    wait_for(lambda: not (careful.storage / "adapters" / job_id).exists(), "the end of its adapter", 10.0)
    assert not kept.exists()


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
    resolved = record["resolved"]
    assert resolved["threads_per_worker"] == usable_cpus()
    assert resolved["openmp_runtime"] == "libgomp"
    assert resolved["openmp_workers_spin"]


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
