"""What a user can say about a fine-tune, from the request to the adapter; and cancel, retry and delete of one."""

from __future__ import annotations

import io
import json
import time
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
import safetensors.torch

from tests.integration.service import ROWS, Service, wait_for
from tests.integration.test_faults import MANY_ROWS, is_past_first_checkpoint, programs_of

# Not a multiple of the number of workers: all of them are evaluated on all the same.
VALIDATION_ROWS = "\n".join(ROWS.splitlines()[:5])
GONE_TIMEOUT_S = 60.0


def test_hyperparameters_reach_the_adapter(service: Service) -> None:
    learning_rate, num_epochs = 1e-3, 2
    job_id = service.start(
        service.upload(ROWS),
        validation_dataset_id=service.upload(VALIDATION_ROWS),
        learning_rate=learning_rate,
        num_epochs=num_epochs,
        batch_size=2,
        gradient_accumulation_steps=2,
        lr_scheduler="linear",
        warmup_ratio=0.1,
        weight_decay=0.01,
        lora_r=4,
        lora_alpha=8,
        lora_dropout=0,
        target_modules=["q_proj", "v_proj"],
        num_workers=2,
        name="All of them",
        labels={"team": "ships", "stage": "test"},
    )
    meta = service.wait_for_end(job_id)["meta"]
    assert (meta["num_train_rows"], meta["num_eval_rows"], meta["num_dropped_rows"]) == (32, 5, 0)
    assert (meta["num_workers"], meta["rows_per_step"], meta["total_steps"]) == (2, 4, 16)
    assert meta["num_tokens"] > 0
    assert [record["epoch"] for record in meta["loss_history"]] == [0, 1, 2]
    job = service.get(f"/api/jobs/{job_id}")
    assert (job["name"], job["labels"]) == ("All of them", {"team": "ships", "stage": "test"})

    points = service.get(f"/api/jobs/{job_id}/metrics")["points"]
    steps = [point["step"] for point in points]
    assert all(earlier < later for earlier, later in pairwise(steps)), steps
    evaluations = [(point["step"], point["epoch"]) for point in points if point["eval_loss"] is not None]
    assert evaluations == [(0, 0), (8, 1), (16, 2)]
    trained = [point for point in points if point["loss"] is not None]
    assert all(point["learning_rate"] > 0 and point["tokens_per_s"] > 0 for point in trained)
    # Two of sixteen steps rise; the last one stands before the end of a straight line to zero.
    assert trained[-1]["step"] == 16
    assert trained[-1]["learning_rate"] == pytest.approx(learning_rate / 14)

    archive = zipfile.ZipFile(io.BytesIO(httpx2.get(f"{service.url}/api/download-model/{job_id}").content))
    config = json.loads(archive.read("adapter_config.json"))
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    tensors = safetensors.torch.load(archive.read("adapter_model.safetensors"))
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in tensors} == {"q_proj", "v_proj"}
    assert {min(tensor.shape) for tensor in tensors.values()} == {4}
    # An adapter of this shape can be served. An engine that runs fetches it by itself, so it may be there already.
    assert service.ask(job_id, "What is the code word of room 3?")["completion_tokens"] > 0


def test_unknown_target_modules_fail_after_one_attempt(service: Service) -> None:
    job_id = service.start(service.upload(ROWS), target_modules=["q_proj", "query_key_value"])
    job = service.wait_until(job_id, lambda job: job["status"] == "failed", "failure")
    assert job["meta"]["failure_reason"] == "invalid_hyperparameters"
    assert job["meta"]["attempt"] == 1
    assert "target_modules has query_key_value, which" in job["message"]
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in job["message"]
    # Ray Train didn't try again either.
    phases = [event["data"]["phase"] for event in events(service, job_id) if "phase" in event["data"]]
    assert phases.count("loading_model") == 1


def test_validation_rows_without_room_are_named(service: Service) -> None:
    too_long = json.dumps({"instruction": "word " * 400, "response": "answer"})
    job_id = service.start(service.upload(ROWS), validation_dataset_id=service.upload(too_long))
    job = service.wait_until(job_id, lambda job: job["status"] == "failed", "failure")
    assert job["meta"]["failure_reason"] == "invalid_dataset"
    assert job["message"].startswith("no row of the validation dataset has room for its answer")


def test_a_cancelled_job_stops_resumes_and_leaves_nothing_when_deleted(service: Service) -> None:
    job_id = service.start(service.upload(MANY_ROWS), num_epochs=3, batch_size=1, validation_split=0)
    service.wait_until(job_id, is_past_first_checkpoint, "the second epoch")
    started = time.monotonic()
    assert service.post(f"/api/jobs/{job_id}/cancel")["status"] == "cancelled"
    assert time.monotonic() - started < 5
    wait_for(lambda: not service.processes("ray::RayTrainWorker"), "the end of its workers", GONE_TIMEOUT_S)
    wait_for(lambda: not programs_of(service, job_id), "the end of its program", GONE_TIMEOUT_S)
    wait_for(lambda: service.status(job_id)["meta"]["phase"] == "cancelled", "the end of its Ray job", GONE_TIMEOUT_S)
    assert (storage_of(service) / "checkpoints" / job_id).is_dir()

    assert service.post(f"/api/jobs/{job_id}/retry")["status"] == "pending"
    done = service.wait_for_end(job_id)["meta"]
    assert done["attempt"] == 2
    # Every epoch once: those before the cancel weren't trained again. Without validation rows nothing is evaluated.
    assert [(record["epoch"], record["eval_loss"]) for record in done["loss_history"]] == [
        (epoch, None) for epoch in (1, 2, 3)
    ]
    assert "Resuming after epoch" in service.driver_logs_of(job_id)
    kinds = [event["kind"] for event in events(service, job_id)]
    assert "failed" not in kinds
    assert kinds.index("cancelled") < kinds.index("retried") < kinds.index("completed")

    response = httpx2.delete(f"{service.url}/api/jobs/{job_id}", timeout=30.0)
    assert response.json() == {"job_id": job_id, "deleted": True}
    assert httpx2.get(f"{service.url}/api/jobs/{job_id}").status_code == 404
    assert not (storage_of(service) / "adapters" / job_id).exists()
    wait_for(lambda: not (storage_of(service) / "checkpoints" / job_id).exists(), "deleted checkpoints", 10.0)


def events(service: Service, job_id: str) -> list[Any]:
    return list(service.get(f"/api/jobs/{job_id}/events?limit=1000")["events"])


def storage_of(service: Service) -> Path:
    return Path(service.environment["SIENN_HOME"]) / "storage"
