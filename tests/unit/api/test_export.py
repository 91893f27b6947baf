from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sienn_ray.errors import ArtifactError
from sienn_ray.export.archive import ARCHIVE_FILES, check_complete, iter_zip
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.storage import CHUNK_BYTES, FileEntry, Manifest, Storage
from tests.support.fakes_api import job_record
from tests.support.in_process_tracker import InProcessTracker

CONTENTS = {
    "adapter_model.safetensors": bytes(range(256)) * 10_000,
    "adapter_config.json": b'{"r": 16}',
    "tokenizer.json": b'{"version": "1.0"}' * 200_000,
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"",
}
# Published with every adapter, but not what the contract puts into the archive.
EXTRA = {"prompt_format.json": b'{"kind": "text", "chat_template": null}'}
MIB = 1024 * 1024


def publish(storage: Storage, contents: dict[str, bytes], folder: Path) -> None:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    storage.publish(folder, "adapters/job-1")


@pytest.fixture
def completed(tracker: InProcessTracker, storage: Storage, tmp_path: Path) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED))
    publish(storage, {**CONTENTS, **EXTRA}, tmp_path / "adapter")


@pytest.mark.usefixtures("completed")
def test_archive_has_exactly_the_five_files(client: TestClient) -> None:
    response = client.get("/api/download-model/job-1")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-disposition"] == 'attachment; filename="model_job-1.zip"'
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == CONTENTS


@pytest.mark.usefixtures("completed")
def test_archive_is_the_same_each_time(client: TestClient) -> None:
    assert client.get("/api/download-model/job-1").content == client.get("/api/download-model/job-1").content


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.FAILED])
def test_only_a_completed_job_has_an_archive(client: TestClient, tracker: InProcessTracker, status: JobStatus) -> None:
    tracker.put(job_record(status=status))
    response = client.get("/api/download-model/job-1")
    assert response.status_code == 400
    assert response.json()["detail"] == (
        f"Job status is '{status.value}', model download is only available for completed jobs"
    )


def test_adapter_that_is_gone_is_an_error_before_the_first_byte(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED))
    response = client.get("/api/download-model/job-1")
    assert response.status_code == 500
    assert "adapters/job-1/manifest.json is missing from storage" in response.json()["detail"]


def test_adapter_without_a_file_is_an_error_before_the_first_byte(
    client: TestClient, tracker: InProcessTracker, storage: Storage, tmp_path: Path
) -> None:
    tracker.put(job_record(status=JobStatus.COMPLETED))
    publish(storage, {name: b"" for name in CONTENTS if name != "tokenizer.json"}, tmp_path / "adapter")
    response = client.get("/api/download-model/job-1")
    assert response.status_code == 500
    assert response.json()["detail"].startswith("adapters/job-1 lacks tokenizer.json; ")


def test_all_missing_files_are_named() -> None:
    manifest = Manifest(tuple(FileEntry(name, 0, "") for name in ARCHIVE_FILES[1:4]))
    with pytest.raises(ArtifactError, match=r"^k lacks adapter_model.safetensors, special_tokens_map.json; "):
        check_complete(manifest, "k")


@pytest.mark.parametrize("large", ["adapter_model.safetensors", "tokenizer.json"])
def test_large_file_streams_in_bounded_memory(storage: Storage, tmp_path: Path, large: str) -> None:
    block = bytes(range(256)) * 4_096
    publish(storage, {**CONTENTS, large: block * 20}, tmp_path / "adapter")
    sizes, target = [], tmp_path / "model.zip"
    with target.open("wb") as file:
        tracemalloc.start()
        for piece in iter_zip(storage, "adapters/job-1", ARCHIVE_FILES):
            sizes.append(len(piece))
            file.write(piece)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(sizes) <= CHUNK_BYTES + 64 * 1024
    assert len(sizes) >= 20
    assert peak_bytes < 8 * MIB
    with zipfile.ZipFile(target) as archive, archive.open(large) as member:
        assert all(member.read(len(block)) == block for _ in range(20))


def test_weights_are_stored_and_text_is_deflated(storage: Storage, tmp_path: Path) -> None:
    publish(storage, CONTENTS, tmp_path / "adapter")
    content = b"".join(iter_zip(storage, "adapters/job-1", ARCHIVE_FILES))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kinds = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert kinds.pop("adapter_model.safetensors") == zipfile.ZIP_STORED
    assert set(kinds.values()) == {zipfile.ZIP_DEFLATED}
