from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sienn_ray.datasets.leftovers import sweep
from sienn_ray.storage import Storage

NOW = datetime(2026, 1, 10, tzinfo=UTC)
DAY = timedelta(hours=24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}")


def make(folder: Path, names: list[str], hours_ago: float) -> None:
    """A dataset's folder, last touched so long before NOW."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    age(folder, hours_ago)


def age(folder: Path, hours_ago: float) -> None:
    moment = (NOW - timedelta(hours=hours_ago)).timestamp()
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (moment, moment))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "files", [[], ["file"], [".0a1b.partial"], ["file", ".0a1b.partial"], ["rows.parquet"], ["statistics/0.json"]]
)
def test_unfinished_upload_without_a_record_goes(storage: Storage, folder: Path, files: list[str]) -> None:
    make(folder / "left", files, hours_ago=25)
    assert sweep(storage, {"other"}, NOW - DAY) == ["left"]
    assert names(folder) == set()


def test_whole_dataset_that_was_never_registered_goes(storage: Storage, folder: Path) -> None:
    make(folder / "left", ["file", "rows.parquet", "unregistered"], hours_ago=25)
    make(folder / "known", ["file", "rows.parquet", "unregistered"], hours_ago=25)
    make(folder / "new", ["file", "rows.parquet", "unregistered"], hours_ago=23)
    assert sweep(storage, {"known"}, NOW - DAY) == ["left"]
    assert names(folder) == {"known", "new"}


def test_what_is_no_upload_stays_and_stops_nothing(storage: Storage, folder: Path) -> None:
    make(folder / "left", ["file"], hours_ago=1_000)
    for name in (".DS_Store", "notes.txt", "two words"):
        (folder / name).write_bytes(b"x")
    age(folder, hours_ago=1_000)
    assert sweep(storage, set(), NOW - DAY) == ["left"]
    assert names(folder) == {".DS_Store", "notes.txt", "two words"}


def test_what_has_a_record_stays(storage: Storage, folder: Path) -> None:
    make(folder / "known", ["file"], hours_ago=1_000)
    make(folder / "left", ["file"], hours_ago=1_000)
    assert sweep(storage, {"known"}, NOW - DAY) == ["left"]
    assert names(folder) == {"known"}


@pytest.mark.parametrize("hours_ago", [0, 23.9])
def test_what_is_young_stays(storage: Storage, folder: Path, hours_ago: float) -> None:
    make(folder / "running", ["file"], hours_ago)
    assert sweep(storage, set(), NOW - DAY) == []
    assert names(folder) == {"running"}


def test_old_folder_with_a_young_file_stays(storage: Storage, folder: Path) -> None:
    """A large upload may take long; what it writes is young."""
    make(folder / "running", ["file", ".0a1b.partial"], hours_ago=100)
    moment = (NOW - timedelta(hours=1)).timestamp()
    os.utime(folder / "running" / ".0a1b.partial", (moment, moment))
    assert sweep(storage, set(), NOW - DAY) == []


def test_whole_dataset_without_a_record_stays(storage: Storage, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a wrong database URL, no dataset has a record."""
    make(folder / "whole", ["file", "rows.parquet"], hours_ago=1_000)
    with caplog.at_level(logging.WARNING):
        assert sweep(storage, set(), NOW - DAY) == []
    assert names(folder) == {"whole"}
    assert "is a whole dataset without a record" in caplog.text


def test_nothing_else_in_storage_is_touched(storage: Storage, folder: Path, tmp_path: Path) -> None:
    make(folder / "left", ["file"], hours_ago=25)
    make(tmp_path / "adapters" / "left", ["file"], hours_ago=25)
    sweep(storage, set(), NOW - DAY)
    assert names(tmp_path) == {"datasets", "adapters"}
    assert names(tmp_path / "adapters") == {"left"}


def test_storage_without_datasets_is_fine(storage: Storage) -> None:
    assert sweep(storage, set(), NOW) == []


def test_object_store_without_folders() -> None:
    storage = Storage("memory://leftovers")
    storage.write_bytes("datasets/left/file", b"x")
    storage.write_bytes("datasets/known/file", b"x")
    storage.write_bytes("datasets/whole/file", b"x")
    storage.write_bytes("datasets/whole/rows.parquet", b"x")
    assert sweep(storage, {"known"}, datetime.now(UTC) - DAY) == []
    assert sweep(storage, {"known"}, datetime.now(UTC) + DAY) == ["left"]
    assert storage.exists("datasets/known/file")
    assert not storage.exists("datasets/left/file")
