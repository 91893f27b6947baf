"""Upload, fine-tune, watch, try and download, on a real Ray with a real (if tiny) language model."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.runs import QueuedRuns, WatchedRun
from tests.integration.service import REQUEST_TIMEOUT_S, ROWS, RefusedError, Service
from tests.support.tiny_model import STRICT_ID, TINY_ID

ARCHIVE_NAMES = {
    "README.md",
    "training_run.json",
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
}


def test_a_job_moves_through_its_phases_and_ends_with_its_facts(service: Service, watched_run: WatchedRun) -> None:
    job_id, seen = watched_run.job_id, watched_run.seen
    done = seen[-1]
    # Some are too short to be seen by looking.
    phases = {event["data"].get("phase") for event in service.events(job_id)}
    progress = [job["progress"] for job in seen]
    assert {"loading_data", "waiting_for_resources", "loading_model", "training", "saving"} <= phases
    timeline = done["meta"]["timeline"]
    assert {"wait_and_submit", "join_cluster", "import_program", "start_workers", "first_step"} <= timeline.keys()
    assert timeline["total"] > 0
    assert progress == sorted(progress)
    assert len(set(progress)) > 4, progress
    assert done["progress"] == 100
    assert done["message"] == "Training completed successfully"
    meta = done["meta"]
    assert (meta["num_train_rows"], meta["num_eval_rows"]) == (29, 3)
    assert meta["current_epoch"] == meta["total_epochs"] == 3
    assert [record["epoch"] for record in meta["loss_history"]] == [0, 1, 2, 3]
    assert meta["loss_history"][-1]["eval_loss"] < meta["loss_history"][0]["eval_loss"]
    assert meta["tokens_per_s"] > 0
    assert (Path(meta["model_path"]) / "adapter_model.safetensors").is_file()
    assert job_id in [job["job_id"] for job in service.get("/api/jobs")["jobs"]]
    running = [job["meta"] for job in seen if job["meta"].get("phase") == "training"]
    assert all(facts["time_left_s"] >= 0 and facts["current_loss"] > 0 for facts in running)


def test_the_answer_is_the_completion_alone_and_a_second_request_loads_nothing(
    service: Service, completed_job: str
) -> None:
    prompt = "What is the code word of room 3?"
    service.ask(completed_job, prompt)
    second = service.ask(completed_job, prompt)
    assert second["adapter_cached"] is True
    assert prompt in second["rendered_prompt"]
    assert prompt not in second["generated_text"]
    sampled = [
        service.ask(completed_job, prompt, do_sample=True, temperature=2.0, seed=seed)["generated_text"]
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_the_download_loads_in_peft_and_answers_the_same(
    service: Service, completed_job: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    response = httpx2.get(f"{service.url}/api/download-model/{completed_job}", timeout=REQUEST_TIMEOUT_S)
    assert response.headers["content-type"] == "application/zip"
    assert f"model_{completed_job}.zip" in response.headers["content-disposition"]
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert set(archive.namelist()) == ARCHIVE_NAMES
    archive.extractall(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == TINY_ID

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_folder), tmp_path).eval()
    prompt = "What is the code word of room 5?"
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    # The engine ends an answer at any mark of the chat template, transformers at the end of sequence only.
    greedy: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.2, "eos_token_id": tokenizer.all_special_ids}
    with torch.inference_mode():
        output = model.generate(**ids, max_new_tokens=24, **greedy)
    expected = tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    answer = service.ask(completed_job, prompt, max_new_tokens=24, repetition_penalty=1.2)
    assert answer["generated_text"] == expected


def test_jobs_wait_for_their_turn_in_order_of_arrival(service: Service, queued: QueuedRuns) -> None:
    assert queued.third["status"] == "pending"
    assert queued.third["meta"]["queue_position"] in (1, 2)
    # Numbers of events rise over all jobs: each one starts after the end of the one before.
    turns = []
    for job_id in queued.ids.values():
        number_of = {event["kind"]: event["seq"] for event in service.events(job_id)}
        turns += [number_of["started"], number_of.get("completed") or number_of["failed"]]
    assert turns == sorted(turns)


def test_every_fine_tune_is_a_ray_job_of_its_own(service: Service, completed_job: str) -> None:
    submission_id = service.status(completed_job)["meta"]["ray_submission_id"]
    jobs = service.on_ray(
        "from ray.job_submission import JobSubmissionClient\n"
        "client = JobSubmissionClient(ray.get_runtime_context().gcs_address)\n"
        "print([(job.submission_id, job.status.value, job.entrypoint) for job in client.list_jobs()])"
    )
    assert submission_id in jobs
    assert f"-m sienn_ray.train --job-id {completed_job}" in jobs


@pytest.mark.parametrize(
    ("model_name", "words"),
    [
        ("nobody/has-this-model", "can't be reached"),
        ("../../etc/passwd", "is not a model id"),
        ("/etc", "is not a model id"),
    ],
)
def test_a_base_model_that_cannot_be_had_is_refused_at_submission(
    service: Service, model_name: str, words: str
) -> None:
    dataset_id = service.upload(ROWS)
    before = service.get("/api/jobs")["count"]
    response = httpx2.post(
        f"{service.url}/api/start-finetuning", json={"dataset_id": dataset_id, "model_name": model_name}, timeout=30.0
    )
    assert response.status_code == 400
    assert words in response.json()["detail"]
    assert service.get("/api/jobs")["count"] == before


def test_a_conversation_that_the_chat_template_refuses_starts_no_job(service: Service) -> None:
    conversation = [{"role": role, "content": "brief words"} for role in ("user", "assistant")]
    dataset_id = service.upload(json.dumps({"messages": conversation}))
    before = service.get("/api/jobs")["count"]
    with pytest.raises(
        RefusedError, match=r"row 1 \(line 1\): .* refuses .*: Brief answers are not supported"
    ):
        service.start(dataset_id, model_name=STRICT_ID)
    assert service.get("/api/jobs")["count"] == before


def test_a_job_whose_rows_have_no_room_fails_with_a_reason(service: Service, queued: QueuedRuns) -> None:
    job_id = queued.ids["rows without room"]
    job = service.status(job_id)
    assert job["status"] == "failed"
    assert job["meta"]["failure_reason"] == "invalid_dataset"
    assert "max_length=128" in job["message"]
    response = httpx2.post(
        f"{service.url}/api/test-model", json={"job_id": job_id, "prompt": "x"}, timeout=REQUEST_TIMEOUT_S
    )
    assert response.status_code == 400
    assert response.json() == {
        "detail": "Job status is 'failed', model testing is only available for completed jobs",
        "status_code": 400,
    }
