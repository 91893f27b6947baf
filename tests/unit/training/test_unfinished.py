from __future__ import annotations

import json
from pathlib import Path

import pytest

from sienn_ray.storage import Storage
from sienn_ray.training.unfinished import delete_unfinished_checkpoints, has_checkpoints

LIST = "checkpoint_manager_snapshot.json"
RUN = "checkpoints/job-1"
WHOLE, LATEST, PART = (f"checkpoint_2026-11-27_10-00-0{number}.000000" for number in range(3))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(f"file://{tmp_path}")
    for name in (WHOLE, LATEST, PART):
        storage.write_bytes(f"{RUN}/{name}/adapter.safetensors", b"weights")
    results = [{"checkpoint_dir_name": name, "metrics": {}} for name in (WHOLE, LATEST)]
    content = {"checkpoint_results": results, "latest_checkpoint_result": results[-1]}
    storage.write_bytes(f"{RUN}/{LIST}", json.dumps(content).encode())
    return storage


def names(storage: Storage) -> set[str]:
    return {Path(path).name for path in storage.fs.ls(storage.path(RUN), detail=False)}


def test_what_is_not_listed_is_deleted(storage: Storage) -> None:
    delete_unfinished_checkpoints(storage, RUN)
    assert names(storage) == {WHOLE, LATEST, LIST}


def test_a_run_has_checkpoints_where_they_are_listed_or_nobody_knows(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_checkpoints(storage, RUN)
    assert not has_checkpoints(storage, "checkpoints/job-2")

    def away(*_: object) -> bytes:
        raise OSError

    monkeypatch.setattr(Storage, "names", away)
    assert has_checkpoints(storage, "checkpoints/job-2")


def test_without_a_list_nothing_is_deleted(storage: Storage) -> None:
    storage.write_bytes(f"{RUN}/snapshot_of_another_version.json", storage.read_bytes(f"{RUN}/{LIST}"))
    storage.delete(f"{RUN}/{LIST}")
    delete_unfinished_checkpoints(storage, RUN)
    assert names(storage) == {WHOLE, LATEST, PART, "snapshot_of_another_version.json"}


@pytest.mark.parametrize("content", [b"{}", b'{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_gone"}]}'])
def test_a_list_of_none_that_is_there_is_no_evidence(storage: Storage, content: bytes) -> None:
    storage.write_bytes(f"{RUN}/{LIST}", content)
    delete_unfinished_checkpoints(storage, RUN)
    assert names(storage) == {WHOLE, LATEST, PART, LIST}


def test_a_list_that_cannot_be_read_costs_no_checkpoint(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    storage.write_bytes(f"{RUN}/{LIST}", b'{"checkpoint_results": [')
    delete_unfinished_checkpoints(storage, RUN)
    assert names(storage) == {WHOLE, LATEST, PART, LIST}
    assert "unfinished checkpoints" in caplog.text


def test_a_run_that_has_not_begun_has_none(tmp_path: Path) -> None:
    delete_unfinished_checkpoints(Storage(f"file://{tmp_path}"), RUN)
    assert list(tmp_path.iterdir()) == []
