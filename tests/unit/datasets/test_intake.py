from __future__ import annotations

import io
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets import dataset_keys, intake
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.storage import Storage

CONTENT = b"text\n" + b"a\n" * 100_000


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(f"file://{tmp_path}")
    storage.write_bytes(dataset_keys.file_key("d"), CONTENT)
    return storage


def files(storage: Storage) -> list[str]:
    return sorted(path.name for path in Path(storage.path("datasets/d")).iterdir())


def test_rows_appear_beside_the_file(storage: Storage) -> None:
    report = intake.check_rows(storage, "d", "d.csv", max_row_bytes=100, abandoned=threading.Event())
    assert report.num_rows == pq.read_metadata(storage.path(dataset_keys.rows_key("d"))).num_rows == 100_000
    assert files(storage) == ["file", "rows.parquet"]


def test_inspection_writes_nothing(storage: Storage) -> None:
    inspection = intake.inspect_file(storage, "d", "d.csv", max_row_bytes=100, abandoned=threading.Event())
    assert (inspection.num_rows, inspection.faults) == (100_000, ())
    assert files(storage) == ["file"]


def test_abandoned_check_ends_and_leaves_no_rows(storage: Storage) -> None:
    abandoned = threading.Event()
    abandoned.set()
    with pytest.raises(intake.AbandonedError):
        intake.check_rows(storage, "d", "d.csv", max_row_bytes=100, abandoned=abandoned)
    with pytest.raises(intake.AbandonedError):
        intake.inspect_file(storage, "d", "d.csv", max_row_bytes=100, abandoned=abandoned)
    assert files(storage) == ["file"]


def test_bad_file_leaves_no_rows(storage: Storage) -> None:
    with pytest.raises(InvalidDatasetError):
        intake.check_rows(storage, "d", "d.jsonl", max_row_bytes=100)
    assert files(storage) == ["file"]


def test_taking_a_bad_file_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(InvalidDatasetError, match=r"line 2: .*; line 4: "):
        intake.take(storage, "e", "e.csv", io.BytesIO(b"text\n,\na\n,\n"), max_row_bytes=100)
    assert not storage.exists("datasets/e")
