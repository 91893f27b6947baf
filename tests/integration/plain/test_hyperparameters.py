"""What a user can say about a fine-tune, from the request to the adapter."""

from __future__ import annotations

import io
import json
import zipfile
from itertools import pairwise

import httpx2
import pytest
import safetensors.torch

from tests.integration.runs import LEARNING_RATE, NUM_PIPED_ROWS, QueuedRuns
from tests.integration.service import PROMPT, REQUEST_TIMEOUT_S, Service, wait_for


def test_hyperparameters_reach_the_adapter(service: Service, queued: QueuedRuns) -> None:
    job_id = queued.ids["hyperparameters"]
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
    assert trained[-1]["learning_rate"] == pytest.approx(LEARNING_RATE / 14)

    archive = zipfile.ZipFile(
        io.BytesIO(httpx2.get(f"{service.url}/api/download-model/{job_id}", timeout=REQUEST_TIMEOUT_S).content)
    )
    config = json.loads(archive.read("adapter_config.json"))
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    tensors = safetensors.torch.load(archive.read("adapter_model.safetensors"))
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in tensors} == {"q_proj", "v_proj"}
    assert {min(tensor.shape) for tensor in tensors.values()} == {4}


def test_an_adapter_is_loaded_before_it_is_asked_for(service: Service, queued: QueuedRuns) -> None:
    job_id = queued.ids["hyperparameters"]
    wait_for(lambda: f"has loaded adapter {job_id}" in service.log_of(job_id), "the load", 60.0)
    # A process that asks Serve for anything prints the lines of all replicas; those are no part of a job's log.
    assert "ServeReplica" not in service.log_of(job_id)
    answer = service.ask(job_id, PROMPT)  # the first one of all
    assert answer["adapter_cached"] is True
    # An adapter of this shape can be served, too.
    assert answer["completion_tokens"] > 0


def test_two_workers_have_the_curve_of_one(service: Service, queued: QueuedRuns) -> None:
    """To 1e-4, the precision that losses are told with; dropout would differ.

    There are more rows than a worker tokenizes itself: the last ones come through Ray Data, each once in an epoch.
    """
    alone, together = (service.wait_for_end(queued.ids[name])["meta"] for name in ("one worker", "two workers"))
    assert (alone["num_workers"], together["num_workers"]) == (1, 2)
    assert alone["num_train_rows"] == together["num_train_rows"] == NUM_PIPED_ROWS * 9 // 10
    assert alone["total_steps"] == together["total_steps"] == 2 * 12
    assert together["num_tokens"] == alone["num_tokens"]
    for one, two in zip(alone["loss_history"], together["loss_history"], strict=True):
        assert two == {name: pytest.approx(value, abs=2e-4) for name, value in one.items()}


def test_unknown_target_modules_fail_after_one_attempt(service: Service, queued: QueuedRuns) -> None:
    job_id = queued.ids["unknown target modules"]
    job = service.status(job_id)
    assert job["status"] == "failed"
    assert job["meta"]["failure_reason"] == "invalid_hyperparameters"
    assert job["meta"]["attempt"] == 1
    assert "target_modules has self_attn.down_proj, which" in job["message"]
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in job["message"]
    # Ray Train didn't try again either.
    phases = [event["data"]["phase"] for event in service.events(job_id) if "phase" in event["data"]]
    assert phases.count("loading_model") == 1


def test_validation_rows_without_room_are_named(service: Service, queued: QueuedRuns) -> None:
    job = service.status(queued.ids["validation rows without room"])
    assert job["status"] == "failed"
    assert job["meta"]["failure_reason"] == "invalid_dataset"
    assert job["message"].startswith("no row of the validation dataset has room for its answer")
