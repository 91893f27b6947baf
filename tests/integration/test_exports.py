"""Exports of a fine-tuned model on a real Ray: made, watched, interrupted, downloaded, loaded where they are to run."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
import torch
from moto.server import ThreadedMotoServer
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.service import ROWS, Service, free_port, running_service, wait_for
from tests.llama_cpp import opened
from tests.modelfile import parse

EXPORT_TIMEOUT_S = 180.0


def export(service: Service, job_id: str, query: str = "", **body: Any) -> Any:
    return service.post(f"/api/export-model/{job_id}{query}", json=body)


def exported(service: Service, job_id: str, **body: Any) -> Any:
    """An export that is complete, however slow the machine."""
    made = export(service, job_id, **body)
    return made if made["status"] == "completed" else finished(service, job_id, made["export_id"])


def finished(service: Service, job_id: str, export_id: str) -> Any:
    def look() -> Any:
        found = state(service, job_id, export_id)
        assert found is None or found["status"] not in {"failed", "cancelled"}, found
        return found if found is not None and found["status"] == "completed" else None

    return wait_for(look, f"end of export {export_id}", EXPORT_TIMEOUT_S)


def state(service: Service, job_id: str, export_id: str) -> Any:
    """How an export is; None while the tracker is away."""
    response = httpx2.get(f"{service.url}/api/exports/{job_id}/{export_id}", timeout=60.0)
    return None if response.is_error else response.json()


def download(made: Any) -> bytes:
    content = httpx2.get(made["download_url"], timeout=120.0).content
    assert len(content) == made["file_size_bytes"]
    assert hashlib.sha256(content).hexdigest() == made["sha256"]
    return content


def base_folder(service: Service) -> Path:
    [config] = Path(service.environment["HF_HOME"]).glob("hub/models--sienn-tests--tiny-llama/snapshots/*/config.json")
    return config.parent


def storage_of(service: Service) -> Path:
    return Path(service.environment["SIENN_HOME"]) / "storage"


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


def test_gguf_answers_as_the_engine_does(service: Service, completed_job: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(download(exported(service, completed_job, format="gguf", quantization="F32")))
    prompts = [f"What is the code word of room {number}?" for number in range(6)]
    answers = [service.ask(completed_job, prompt, repetition_penalty=1.0) for prompt in prompts]
    tokenizer = AutoTokenizer.from_pretrained(base_folder(service))
    with opened(tmp_path / "model.gguf") as model:
        for answer in answers:
            ids = model.tokenize(answer["rendered_prompt"])
            assert len(ids) == answer["prompt_tokens"]
            text = tokenizer.decode(model.continuation(ids, 10), skip_special_tokens=True)
            assert text.strip() == answer["generated_text"].strip()


def test_ollama_archive_has_a_modelfile_and_its_model(service: Service, completed_job: str, tmp_path: Path) -> None:
    made = exported(
        service, completed_job, format="ollama", model_name="rooms:v1", temperature=0.1, system="Know the rooms."
    )
    with zipfile.ZipFile(io.BytesIO(download(made))) as archive:
        archive.extractall(tmp_path)
    commands = parse((tmp_path / "Modelfile").read_text())
    assert dict(commands)["model"] == "./model.gguf"
    assert dict(commands)["system"] == "Know the rooms."
    assert dict(commands)["temperature"] == "0.1"
    assert ("stop", "<|im_end|>") in commands
    assert "ollama create rooms:v1" in (tmp_path / "install.sh").read_text()
    with opened(tmp_path / "model.gguf") as model:
        assert model.tokenize("<|im_start|>") == [1]


def test_an_interrupted_download_goes_on(service: Service, completed_job: str) -> None:
    made = exported(service, completed_job, format="gguf", quantization="F16")
    whole = download(made)
    url = made["download_url"]
    rest = httpx2.get(url, headers={"Range": "bytes=1000000-", "If-Range": f'"{made["sha256"]}"'}, timeout=120.0)
    assert (rest.status_code, rest.content) == (206, whole[1_000_000:])
    assert httpx2.head(url).headers["content-length"] == str(len(whole))
    altered = httpx2.get(url[:-2])
    assert (altered.status_code, "altered or cut" in altered.json()["detail"]) == (403, True)


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


def test_a_killed_run_is_begun_again(service: Service, completed_job: str) -> None:
    export_id = begun(service, completed_job, format="ollama", quantization="Q6_K", model_name="killed")
    for run in runs_of(service, export_id):
        run.kill()
    made = finished(service, completed_job, export_id)
    assert "model.gguf" in zipfile.ZipFile(io.BytesIO(download(made))).namelist()
    folder = storage_of(service) / "exports" / completed_job / export_id
    assert {path.name for path in folder.rglob("*")} == {"manifest.json", made["file_name"]}


def test_exports_outlive_the_tracker(service: Service, completed_job: str) -> None:
    export_id = begun(service, completed_job, format="gguf", quantization="Q5_K_S")
    for tracker in service.processes("ray::JobTracker"):
        tracker.kill()
    assert len(download(finished(service, completed_job, export_id))) > 1_000_000


def test_a_cancelled_export_leaves_nothing_and_can_be_made_later(service: Service, completed_job: str) -> None:
    export_id = begun(service, completed_job, format="gguf", quantization="Q3_K_M")
    folder = storage_of(service) / "exports" / completed_job / export_id
    assert service.post(f"/api/exports/{completed_job}/{export_id}/cancel")["status"] == "cancelled"
    wait_for(lambda: not runs_of(service, export_id), "the end of the run", 30.0)
    wait_for(lambda: not folder.exists(), "the end of its files", 30.0)
    made = exported(service, completed_job, format="gguf", quantization="Q3_K_M")
    assert (made["export_id"], made["status"]) == (export_id, "completed")


def test_s3_gives_presigned_links(
    tmp_path_factory: pytest.TempPathFactory, hub_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way with artifacts in an S3 server."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    try:
        access = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        for name, value in access.items():
            monkeypatch.setenv(name, value)
        httpx2.put(f"http://127.0.0.1:{port}/artifacts", headers={"Authorization": "AWS tests:tests"})
        home = tmp_path_factory.mktemp("s3-service")
        with running_service(home, hub_home, SIENN_STORAGE_URL="s3://artifacts/sienn") as service:
            job_id = service.start(service.upload(ROWS), num_epochs=1, batch_size=8)
            service.wait_for_end(job_id)
            made = exported(service, job_id, format="gguf", quantization="Q4_K_M")
            link = urlsplit(made["download_url"])
            assert (link.port, link.path.rpartition("/")[2]) == (port, "model-Q4_K_M.gguf")
            assert "X-Amz-Signature=" in link.query
            whole = download(made)
            part = httpx2.get(made["download_url"], headers={"Range": "bytes=4-99"})
            assert (part.status_code, part.content) == (206, whole[4:100])
            assert job_id in part.headers["content-disposition"]
            merged = exported(service, job_id, format="huggingface", merged=True)
            assert zipfile.ZipFile(io.BytesIO(download(merged))).testzip() is None
            deleted = httpx2.delete(f"{service.url}/api/exports/{job_id}/{made['export_id']}", timeout=60.0)
            assert deleted.status_code == 200
            # Who may not list a bucket isn't told what it doesn't have.
            assert httpx2.get(made["download_url"]).status_code in {403, 404}
    finally:
        server.stop()
