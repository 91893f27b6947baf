"""Exports of a fine-tuned model on a real Ray: made, watched, interrupted, downloaded, loaded where they are to run."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.exports import EXPORT_TIMEOUT_S, download, export, exported, finished, state
from tests.integration.service import REQUEST_TIMEOUT_S, Service, wait_for
from tests.support.llama_cpp import opened
from tests.support.modelfile import parse


def base_folder(service: Service) -> Path:
    [config] = Path(service.environment["HF_HOME"]).glob("hub/models--sienn-tests--tiny-llama/snapshots/*/config.json")
    return config.parent


def test_adapter_and_merged_model_load_in_peft_and_transformers(
    service: Service, completed_job: str, tmp_path: Path
) -> None:
    for name, options in (("adapter", {}), ("merged", {"merged": True})):
        content = download(exported(service, completed_job, format="huggingface", **options))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            archive.extractall(tmp_path / name)
    base = AutoModelForCausalLM.from_pretrained(base_folder(service))
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = AutoTokenizer.from_pretrained(tmp_path / "merged")("What is the code word?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)


def runs_of(service: Service, export_id: str) -> list[psutil.Process]:
    return service.processes(f"ray::export {export_id}")


def begun(service: Service, job_id: str, **body: Any) -> str:
    """Begin an export, and wait until its run is at work."""
    export_id = str(export(service, job_id, "?wait=false", **body)["export_id"])

    def is_at_work() -> bool:
        found = state(service, job_id, export_id)
        return bool(found and found["status"] == "running" and runs_of(service, export_id))

    wait_for(is_at_work, "the run of an export", EXPORT_TIMEOUT_S)
    return export_id


@pytest.fixture(scope="module")
def after_a_killed_run(service: Service, completed_job: str) -> Any:
    """An Ollama export whose first run was killed."""
    options = {"model_name": "rooms:v1", "temperature": 0.1, "system": "Know the rooms."}
    export_id = begun(service, completed_job, format="ollama", quantization="Q6_K", **options)
    for run in runs_of(service, export_id):
        run.kill()
    return finished(service, completed_job, export_id)


@pytest.fixture(scope="module")
def after_a_killed_tracker(service: Service, completed_job: str) -> Any:
    """A GGUF export during whose run the tracker was killed."""
    export_id = begun(service, completed_job, format="gguf", quantization="F32")
    for tracker in service.processes("ray::JobTracker"):
        tracker.kill()
    return finished(service, completed_job, export_id)


def test_a_killed_run_is_begun_again(service: Service, completed_job: str, after_a_killed_run: Any) -> None:
    made = after_a_killed_run
    assert "model.gguf" in zipfile.ZipFile(io.BytesIO(download(made))).namelist()
    folder = service.storage / "exports" / completed_job / made["export_id"]
    assert {path.name for path in folder.rglob("*")} == {"manifest.json", made["file_name"]}


def test_ollama_archive_has_a_modelfile_and_its_model(after_a_killed_run: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(download(after_a_killed_run))) as archive:
        archive.extractall(tmp_path)
    commands = parse((tmp_path / "Modelfile").read_text())
    assert dict(commands)["model"] == "./model.gguf"
    assert dict(commands)["system"] == "Know the rooms."
    assert dict(commands)["temperature"] == "0.1"
    assert ("stop", "<|im_end|>") in commands
    assert "ollama create rooms:v1" in (tmp_path / "install.sh").read_text()
    with opened(tmp_path / "model.gguf") as model:
        assert model.tokenize("<|im_start|>") == [1]


def test_exports_outlive_the_tracker(after_a_killed_tracker: Any) -> None:
    assert len(download(after_a_killed_tracker)) > 1_000_000


def test_gguf_answers_as_the_engine_does(
    service: Service, completed_job: str, after_a_killed_tracker: Any, tmp_path: Path
) -> None:
    (tmp_path / "model.gguf").write_bytes(download(after_a_killed_tracker))
    prompts = [f"What is the code word of room {number}?" for number in range(6)]
    answers = [service.ask(completed_job, prompt, repetition_penalty=1.0) for prompt in prompts]
    tokenizer = AutoTokenizer.from_pretrained(base_folder(service))
    with opened(tmp_path / "model.gguf") as model:
        for answer in answers:
            ids = model.tokenize(answer["rendered_prompt"])
            assert len(ids) == answer["prompt_tokens"]
            text = tokenizer.decode(model.continuation(ids, 10), skip_special_tokens=True)
            assert text.strip() == answer["generated_text"].strip()


def test_an_interrupted_download_goes_on(after_a_killed_tracker: Any) -> None:
    made = after_a_killed_tracker
    whole = download(made)
    url = made["download_url"]
    rest = httpx2.get(url, headers={"Range": "bytes=1000000-", "If-Range": f'"{made["sha256"]}"'}, timeout=120.0)
    assert (rest.status_code, rest.content) == (206, whole[1_000_000:])
    assert httpx2.head(url).headers["content-length"] == str(len(whole))
    altered = httpx2.get(url[:-2], timeout=REQUEST_TIMEOUT_S)
    assert (altered.status_code, "altered or cut" in altered.json()["detail"]) == (403, True)


def test_a_cancelled_export_leaves_nothing_and_can_be_made_later(service: Service, completed_job: str) -> None:
    export_id = begun(service, completed_job, format="gguf", quantization="Q3_K_M")
    folder = service.storage / "exports" / completed_job / export_id
    assert service.post(f"/api/exports/{completed_job}/{export_id}/cancel")["status"] == "cancelled"
    wait_for(lambda: not runs_of(service, export_id), "the end of the run", 30.0)
    wait_for(lambda: not folder.exists(), "the end of its files", 30.0)
    made = exported(service, completed_job, format="gguf", quantization="Q3_K_M")
    assert (made["export_id"], made["status"]) == (export_id, "completed")
