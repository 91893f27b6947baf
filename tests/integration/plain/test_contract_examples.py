"""The examples of docs/api.md, as a user would paste them; only address, ids and the data file are put in."""

from __future__ import annotations

import json
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
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_python_example_goes_from_upload_to_an_answer(service: Service, folder: Path) -> None:
    script = "\n".join(blocks("python")).replace("http://localhost:8000", service.url)
    lines = run([sys.executable, "-c", script], folder).splitlines()
    assert lines[0].startswith("Dataset uploaded: ")
    assert lines[1].startswith("Training started: ")
    assert "Status: completed - 100%" in lines


def test_the_curl_examples(service: Service, folder: Path, completed_job: str) -> None:
    dataset_id = service.get("/api/datasets")["datasets"][0]["id"]
    answers = {}
    for block in blocks("bash"):
        command = block.replace("http://localhost:8000", service.url)
        command = command.replace("f8e7d3b2-...", dataset_id).replace("a1b2c3d4-...", completed_job)
        path = re.findall(r"localhost:8000/(?:api|v1)/([^\s\"?]+)", block)[0].split("/")
        answers[f"{path[0]}/{path[-1]}"] = run(["bash", "-c", command], folder)
    assert '"status":"uploaded"' in answers["upload-dataset/upload-dataset"]
    assert json.loads(answers["validate-dataset/validate-dataset"])["valid"] is True
    assert json.loads(answers["datasets/statistics"])["num_rows"] > 0
    assert '"message":"Fine-tuning job submitted successfully"' in answers["start-finetuning/start-finetuning"]
    assert json.loads(answers["jobs/jobs"])["count"] >= 1
    assert json.loads(answers["jobs/metrics"])["points"]
    assert answers["jobs/logs"]
    # The job that the examples name has ended.
    assert "can be paused" in answers["jobs/pause"]
    assert '"generated_text":' in answers["test-model/test-model"]
    assert [each["job_id"] for each in json.loads(answers["compare-models/compare-models"])["answers"]] == [
        None,
        completed_job,
    ]
    assert json.loads(answers["chat/completions"])["choices"][0]["finish_reason"] in {"stop", "length"}
    assert "adapter_config.json" in zipfile.ZipFile(folder / "model.zip").namelist()
    export = json.loads(answers["export-model/a1b2c3d4-..."])
    if export["status"] != "completed":  # a request waits for some seconds only
        export = finished(service, completed_job, export["export_id"])
    assert (export["status"], export["file_name"], export["model_name"]) == ("completed", "ollama.zip", "my-chatbot")
    # Where there is no network, the receiver of the example has no address.
    assert "hooks.example.org" in answers["webhooks/webhooks"]
    assert len(answers) == 15
    # Nobody waits for the job that was started; it may have ended by now.
    started = json.loads(answers["start-finetuning/start-finetuning"])["job_id"]
    assert httpx2.post(f"{service.url}/api/jobs/{started}/cancel", timeout=30.0).status_code in {200, 409}


def test_the_typescript_example(service: Service, folder: Path) -> None:
    node = shutil.which("node")
    assert node is not None, "node runs this example; install Node.js 20 or later"
    (example,) = blocks("typescript")
    script = FILE_INPUT + example.replace("http://localhost:8000", service.url)
    (folder / "example.mjs").write_text(script)
    assert re.fullmatch(r"Progress: \d+%\n", run([node, "example.mjs"], folder))
