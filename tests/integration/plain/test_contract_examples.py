"""The examples of docs/api.md, as a user would paste them; only address, ids and the data file are put in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx2
import pytest

from tests.integration.exports import finished
from tests.integration.service import Service

DOCUMENT = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
CSV = "instruction,response\n" + "\n".join(
    f'"What is item {number}?","Item {number} is a programming term, {number} letters long."' for number in range(12)
)
# Stands for the page's <input type="file">.
FILE_INPUT = """
import { readFileSync } from 'node:fs';
import { File } from 'node:buffer';
const fileInput = { files: [new File([readFileSync('dataset.csv')], 'dataset.csv')] };
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset.csv").write_text(CSV)
    (tmp_path / "fragen.csv").write_text("Frage;Antwort\nWann \u00f6ffnet ihr?;Um sechs.\n", encoding="windows-1252")
    return tmp_path


def run(command: list[str], folder: Path, server: str = "") -> str:
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": scripts, "SIENN_URL": server}
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_python_example_goes_from_upload_to_an_answer(service: Service, folder: Path) -> None:
    script = "\n".join(blocks("python")).replace("http://localhost:8000", service.url)
    lines = run([sys.executable, "-c", script], folder).splitlines()
    assert lines[0].startswith("Dataset uploaded: ")
    assert lines[1].startswith("Training started: ")
    assert "Status: completed - 100%" in lines


def test_the_curl_examples(service: Service, folder: Path, completed_job: str) -> None:
    (folder / "more.jsonl").write_text(json.dumps({"instruction": "What is item 13?", "response": "The last one."}))
    pair = {"prompt": "What is item 1?", "chosen": "Item 1 is a term.", "rejected": "No."}
    ids = {
        "f8e7d3b2-...": service.upload(CSV, "dataset.csv"),
        "0b9c7a54-...": service.upload(CSV.replace("programming", "sailing"), "dataset.csv"),
        "5b7c2f10-...": service.upload(json.dumps(pair)),
        "a1b2c3d4-...": completed_job,
    }
    answers: dict[str, list[str]] = {}
    for block in blocks("bash"):
        command = block.replace("http://localhost:8000", service.url)
        for name, there in ids.items():
            command = command.replace(name, there)
        path = re.findall(r"localhost:8000/(?:api|v1)/([^\s\"?]+)", block)[0].split("/")
        answers.setdefault(f"{path[0]}/{path[-1]}", []).append(run(["bash", "-c", command], folder, service.url))
    first = {path: found[0] for path, found in answers.items()}
    assert len(answers["upload-dataset/upload-dataset"]) == 2
    assert all('"status":"uploaded"' in answer for answer in answers["upload-dataset/upload-dataset"])
    assert json.loads(first["validate-dataset/validate-dataset"])["valid"] is True
    assert json.loads(first["datasets/statistics"])["num_rows"] > 0
    assert "hf:owner/name" in first["import-dataset/import-dataset"]  # there is no hub here
    assert '"version":2' in first["datasets/versions"]
    assert '"num_added":1' in first["datasets/versions"]
    assert "What is item 0?" in first["datasets/rendered"]
    starts = [json.loads(answer) for answer in answers["start-finetuning/start-finetuning"]]
    assert [start["message"] for start in starts] == ["Fine-tuning job submitted successfully"] * 3
    assert json.loads(first["jobs/jobs"])["count"] >= 1
    assert json.loads(first["jobs/metrics"])["points"]
    assert first["jobs/logs"]
    # The job that the examples name has ended.
    assert "can be paused" in first["jobs/pause"]
    assert all('"generated_text":' in answer for answer in answers["test-model/test-model"])
    compared = json.loads(first["compare-models/compare-models"])["answers"]
    assert [each["job_id"] for each in compared] == [None, completed_job]
    for answer in answers["chat/completions"]:
        assert json.loads(answer)["choices"][0]["finish_reason"] in {"stop", "length"}
    assert "adapter_config.json" in zipfile.ZipFile(folder / "model.zip").namelist()
    export = json.loads(first["export-model/a1b2c3d4-..."])
    if export["status"] != "completed":  # a request waits for some seconds only
        export = finished(service, completed_job, export["export_id"])
    assert (export["status"], export["file_name"], export["model_name"]) == ("completed", "ollama.zip", "my-chatbot")
    # Where there is no network, the receiver of the example has no address.
    assert "hooks.example.org" in first["webhooks/webhooks"]
    assert len(answers) == 18
    # Nobody waits for the jobs that were started; they may have ended by now.
    for start in starts:
        ended = httpx2.post(f"{service.url}/api/jobs/{start['job_id']}/cancel", timeout=30.0)
        assert ended.status_code in {200, 409}


def test_the_typescript_example(service: Service, folder: Path) -> None:
    node = shutil.which("node")
    assert node is not None, "node runs this example; install Node.js 20 or later"
    (example,) = blocks("typescript")
    script = FILE_INPUT + example.replace("http://localhost:8000", service.url)
    (folder / "example.mjs").write_text(script)
    assert re.fullmatch(r"Progress: \d+%\n", run([node, "example.mjs"], folder))
