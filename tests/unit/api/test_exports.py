from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from sienn_ray.export.gguf import llama_cpp_package
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import job_record
from tests.support.fakes_exports import CONTENT, export_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.test_export import CONTENTS, publish

JOB = "job-1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", export_wait_s=0.2)


@pytest.fixture(autouse=True)
def _completed(tracker: InProcessTracker, storage: Storage, tmp_path: Path) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED))
    publish(storage, CONTENTS, tmp_path / "adapter")


@pytest.fixture
def making(tracker: InProcessTracker) -> None:
    """Exports are made while they are looked at."""
    tracker.before["export"] = lambda _: tracker.make_exports()


def change_while_looked_at(tracker: InProcessTracker, **changes: Any) -> None:
    """Have an export come to other fields while somebody waits for it."""

    def change(export_id: str) -> None:
        tracker.put_export(tracker.actor.export(export_id).model_copy(update=changes))

    tracker.before["export"] = change


def export(client: TestClient, query: str = "", **body: Any) -> Any:
    return client.post(f"/api/export-model/{JOB}{query}", json={"format": "gguf", **body})


@pytest.mark.usefixtures("making")
def test_a_quick_export_is_answered_with_its_file(client: TestClient) -> None:
    response = export(client, quantization="q8_0")
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["message"]) == ("completed", "Model exported successfully to gguf format")
    assert (body["file_name"], body["file_size_bytes"]) == ("model-Q8_0.gguf", len(CONTENT))
    file = client.get(body["download_url"])
    assert (file.status_code, file.content) == (200, CONTENT)
    assert file.headers["etag"] == f'"{body["sha256"]}"'
    assert file.headers["content-length"] == str(len(CONTENT))
    assert file.headers["content-disposition"] == f'attachment; filename="{JOB}-model-Q8_0.gguf"'
    assert client.head(body["download_url"]).headers["accept-ranges"] == "bytes"


@pytest.mark.usefixtures("making")
def test_parts_of_a_file(client: TestClient) -> None:
    body = export(client).json()
    url, tag = body["download_url"], f'"{body["sha256"]}"'
    part = client.get(url, headers={"Range": "bytes=4-9", "If-Range": tag})
    assert (part.status_code, part.content) == (206, CONTENT[4:10])
    assert part.headers["content-range"] == f"bytes 4-9/{len(CONTENT)}"
    assert client.get(url, headers={"Range": "bytes=-5"}).content == CONTENT[-5:]
    # Another file than the one that was begun is sent whole.
    assert client.get(url, headers={"Range": "bytes=4-9", "If-Range": '"other"'}).status_code == 200
    beyond = client.get(url, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    assert beyond.json()["detail"].endswith(f"asks for what the file doesn't have; it has {len(CONTENT)} bytes")
    assert client.get(url, headers={"Range": "bytes=x"}).status_code == 400


def test_a_long_export_is_answered_before_it_is_there(client: TestClient, tracker: InProcessTracker) -> None:
    for query in ("", "?wait=false"):
        response = export(client, query)
        assert (response.status_code, response.json()["status"]) == (202, "pending")
        assert response.json()["download_url"] is None
    export_id = response.json()["export_id"]
    assert client.get(f"/api/exports/{JOB}").json()["count"] == 1
    assert client.get(f"/api/exports/{JOB}/{export_id}").json()["progress"] == 0
    assert client.post(f"/api/exports/{JOB}/{export_id}/cancel").json()["status"] == "cancelled"
    assert client.post(f"/api/exports/{JOB}/{export_id}/cancel").status_code == 409
    assert client.delete(f"/api/exports/{JOB}/{export_id}").json()["export_id"] == export_id
    assert client.delete(f"/api/exports/{JOB}/{export_id}").status_code == 404


@pytest.mark.usefixtures("making")
def test_the_same_choices_are_one_export(client: TestClient) -> None:
    same = [export(client, quantization=name).json() for name in ("Q4_K_M", "q4_k_m")]
    same.append(export(client).json())
    assert len({body["export_id"] for body in same}) == 1
    assert export(client, quantization="Q6_K").json()["export_id"] != same[0]["export_id"]


@pytest.mark.usefixtures("making")
def test_export_whose_file_is_gone_is_made_again(client: TestClient, storage: Storage) -> None:
    first = export(client).json()
    shutil.rmtree(storage.path(f"exports/{JOB}/{first['export_id']}"))
    assert client.get(first["download_url"]).status_code == 500
    assert client.get(export(client).json()["download_url"]).content == CONTENT


@pytest.mark.usefixtures("making")
def test_deleted_export_takes_its_file_along(client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
    body = export(client).json()
    client.delete(f"/api/exports/{JOB}/{body['export_id']}")
    for _ in range(2):  # its file is there still, and then it isn't
        assert client.get(body["download_url"]).status_code == 404
        assert client.get(f"/api/exports/{JOB}").json()["count"] == 0
        tracker.step("deletions")
    assert not storage.exists(f"exports/{JOB}/{body['export_id']}")


@pytest.mark.usefixtures("making")
def test_deleted_export_can_be_asked_for_at_once(client: TestClient, tracker: InProcessTracker) -> None:
    first = export(client).json()
    client.delete(f"/api/exports/{JOB}/{first['export_id']}")
    waiting = export(client, "?wait=false")
    assert (waiting.status_code, waiting.json()["export_id"]) == (202, first["export_id"])
    tracker.make_exports()
    assert len(tracker.export_runs.started) == 1, "the old file would be deleted under the new run"
    tracker.step("deletions")
    assert client.get(export(client).json()["download_url"]).content == CONTENT


@pytest.mark.usefixtures("making")
def test_deleted_job_takes_its_exports_along(client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
    export(client)
    assert client.delete(f"/api/jobs/{JOB}").status_code == 200
    assert export(client).status_code == 404
    tracker.step("deletions")
    assert not storage.exists(f"exports/{JOB}")


def test_no_export_is_left_of_a_job_that_is_deleted(client: TestClient, tracker: InProcessTracker) -> None:
    """One that is asked for at the last moment goes with the job, in the same transaction."""
    tracker.before["delete_job"] = lambda _: export_at_once(tracker)
    assert client.delete(f"/api/jobs/{JOB}").status_code == 200
    tracker.before.clear()
    tracker.step("exports")
    assert tracker.export_runs.started == []
    assert tracker.actor._store.sweep.wanted_exports() == set()


def export_at_once(tracker: InProcessTracker) -> None:
    assert tracker.actor.request_export(export_record(JOB)).job_id == JOB


@pytest.mark.usefixtures("making")
def test_altered_links_are_refused(client: TestClient) -> None:
    url = export(client).json()["download_url"]
    query = urlsplit(url).query
    assert client.get(url[:-1]).status_code == 403
    assert client.get(url.replace("expires=1", "expires=2")).status_code == 403
    assert client.get(url.replace("model-Q4_K_M.gguf", "manifest.json")).status_code == 403
    assert client.get(url.partition("?")[0]).status_code == 403
    assert client.get(f"/api/export-files/{JOB}/other/model-Q4_K_M.gguf?{query}").status_code == 403
    assert client.get(f"/api/export-files/{JOB}/%2e%2e%2f%2e%2e/sienn.db?{query}").status_code == 404


@pytest.mark.usefixtures("making")
def test_links_begin_as_the_settings_say(client: TestClient, settings: Settings) -> None:
    assert export(client).json()["download_url"].startswith("http://testserver/api/export-files/")
    behind = settings.model_copy(update={"public_url": "https://models.example/sienn/"})
    client.app.state.export_links._backends = _with(client, settings=behind)  # type: ignore[attr-defined]
    assert export(client).json()["download_url"].startswith("https://models.example/sienn/api/export-files/")


def _with(client: TestClient, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(client.app.state.backends, **changes)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (ExportFailure.INVALID, 400),
        (ExportFailure.STORAGE_FULL, 507),
        (ExportFailure.OUT_OF_MEMORY, 503),
        (ExportFailure.INTERNAL, 500),
        (ExportFailure.INTERRUPTED, 500),
    ],
)
def test_failure_is_told_who_waits(
    client: TestClient, tracker: InProcessTracker, reason: ExportFailure, status: int
) -> None:
    failed = {"status": ExportStatus.FAILED, "failure_reason": reason, "message": "why it failed"}
    change_while_looked_at(tracker, **failed)
    response = export(client)
    assert response.status_code == status
    assert response.json()["detail"].startswith("why it failed")
    [listed] = client.get(f"/api/exports/{JOB}").json()["exports"]
    assert (listed["status"], listed["failure_reason"], listed["message"]) == ("failed", reason.value, "why it failed")


def test_who_waits_is_told_of_a_cancel(client: TestClient, tracker: InProcessTracker) -> None:
    cancelled = {"status": ExportStatus.CANCELLED}
    change_while_looked_at(tracker, **cancelled)
    response = export(client)
    assert response.status_code == 409
    assert "was cancelled meanwhile" in response.json()["detail"]


MEANINGS = {
    "three quotes in a row",
    "quantization is of the formats gguf and ollama",
    "adapter_only is of the format gguf",
    "which takes F32, F16, BF16, Q8_0",
    "exclude each other",
}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"format": "onnx"}, "format: has to be 'ollama', 'huggingface' or 'gguf'"),
        ({"quantization": "Q9_K"}, "'Q2_K' (got 'Q9_K')"),
        ({"format": "ollama", "model_name": "../../etc/passwd"}, "is no name for Ollama"),
        ({"format": "ollama", "model_name": "a b"}, "is no name for Ollama"),
        ({"format": "ollama", "system": 'a """ b'}, "three quotes in a row"),
        ({"format": "ollama", "temperature": 2.1}, "temperature"),
        ({"format": "huggingface", "quantization": "Q8_0"}, "quantization is of the formats gguf and ollama"),
        ({"format": "ollama", "adapter_only": True}, "adapter_only is of the format gguf"),
        ({"adapter_only": True, "quantization": "Q4_K_M"}, "which takes F32, F16, BF16, Q8_0"),
        ({"adapter_only": True, "merged": True}, "exclude each other"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_bad_input_is_named(client: TestClient, tracker: InProcessTracker, body: dict[str, Any], words: str) -> None:
    response = export(client, **body)
    # What a field can't be by itself is a 422, what only doesn't fit the others a 400.
    assert response.status_code == (400 if words in MEANINGS else 422)
    assert words in response.json()["detail"]
    assert "request_export" not in tracker.calls


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.FAILED])
def test_only_a_completed_job_is_exported(client: TestClient, tracker: InProcessTracker, status: JobStatus) -> None:
    tracker.put(job_record(status=status))
    response = export(client)
    assert (response.status_code, response.json()["detail"]) == (
        400,
        f"Job status is '{status.value}', model export is only available for completed jobs",
    )


def test_deleted_adapter_is_an_error_at_once(client: TestClient, tracker: InProcessTracker, storage: Storage) -> None:
    storage.delete(f"adapters/{JOB}")
    response = export(client)
    assert response.status_code == 500
    assert "adapters/job-1/manifest.json is missing from storage" in response.json()["detail"]
    assert "request_export" not in tracker.calls


@pytest.mark.usefixtures("making")
def test_without_llama_cpp_k_quants_are_refused_with_the_way_out(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp_package, "MODULE", "no_such_module")
    assert client.get("/api/export-formats").json()["formats"][2]["quantizations"] == ["F32", "F16", "BF16", "Q8_0"]
    response = export(client, quantization="Q4_K_M")
    assert response.status_code == 400
    assert response.json()["detail"] == (
        "quantization Q4_K_M needs llama.cpp's code, which isn't installed; add it with "
        "`pip install 'sienn-ray[gguf]'`, or choose one of F32, F16, BF16, Q8_0"
    )
    assert export(client, quantization="Q8_0").status_code == 200


# As the first version has kept them.
KEPT: dict[str, Any] = {
    "job_id": JOB,
    "base_model": "owner/model",
    "job_name": None,
    "attempt": 1,
    "created_at": "2025-03-04T05:06:07.890000Z",
    "updated_at": "2025-03-04T05:06:08Z",
    "ended_at": "2025-03-04T05:06:08Z",
}
CHOICES = {
    "merged": False,
    "adapter_only": False,
    "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40},
    "system": None,
}
OLLAMA = {
    "id": "a" * 32,
    "options": {"format": "ollama", "quantization": "Q4_K_M", "model_name": "me/ferry:1", **CHOICES},
    "status": "completed",
    "progress": 100,
    "message": "The export is complete",
    "failure_reason": None,
    "file_name": "ollama.zip",
    "size_bytes": 123,
    "sha256": "c" * 64,
    "expires_at": "2025-03-11T05:06:08Z",
}
MERGED = {
    "id": "b" * 32,
    "options": {"format": "huggingface", "quantization": None, "model_name": None, **CHOICES, "merged": True},
    "status": "failed",
    "progress": 7,
    "message": "the node ran out of memory",
    "failure_reason": "out_of_memory",
    "file_name": None,
    "size_bytes": None,
    "sha256": None,
    "expires_at": None,
}
ANSWER = (
    '{"exports":['
    '{"job_id":"job-1","format":"huggingface","status":"failed","message":"the node ran out of memory",'
    '"download_url":null,"file_size_bytes":null,"timestamp":"NOW","export_id":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",'
    '"progress":7,"file_name":null,"sha256":null,"quantization":null,"merged":true,"adapter_only":false,'
    '"model_name":null,"failure_reason":"out_of_memory","created_at":"2025-03-04T05:06:07.890Z","expires_at":null},'
    '{"job_id":"job-1","format":"ollama","status":"completed","message":"Model exported successfully to ollama format",'
    '"download_url":"http://testserver/api/export-files/job-1/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/ollama.zip?SIGNED",'
    '"file_size_bytes":123,"timestamp":"NOW","export_id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",'
    f'"progress":100,"file_name":"ollama.zip","sha256":"{"c" * 64}","quantization":"Q4_K_M","merged":false,'
    '"adapter_only":false,"model_name":"me/ferry:1","failure_reason":null,"created_at":"2025-03-04T05:06:07.890Z",'
    '"expires_at":"2025-03-11T05:06:08.000Z"}],'
    '"count":2,"next_cursor":null}'
)


def test_kept_exports_are_answered_as_the_first_version_did(client: TestClient, tracker: InProcessTracker) -> None:
    for record in (OLLAMA, MERGED):
        tracker.put_export(ExportRecord.model_validate({**KEPT, **record}))
    answered = client.get(f"/api/exports/{JOB}").text
    without_time = re.sub(r'"timestamp":"[^"]+"', '"timestamp":"NOW"', re.sub(r'\?expires=[^"]+', "?SIGNED", answered))
    assert without_time == ANSWER


def test_unknown_exports_are_not_found(client: TestClient) -> None:
    for path in (f"/api/exports/{JOB}/nothing", "/api/exports/nothing", f"/api/exports/{JOB}/a%20b"):
        assert client.get(path).status_code == 404
