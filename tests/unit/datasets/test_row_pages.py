from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets import dataset_keys, intake
from sienn_ray.datasets.row_pages import MAX_STRING_CHARS, read_page
from sienn_ray.datasets.row_writer import MAX_ROW_GROUP_ROWS as GROUP
from sienn_ray.datasets.schema import Message, Role
from sienn_ray.errors import ArtifactError
from sienn_ray.storage import Storage

NUM_ROWS = GROUP * 2 + 10


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Storage with a dataset of three row groups, the last one short."""
    storage = Storage(f"file://{tmp_path_factory.mktemp('storage')}")
    intake.take(storage, "d", "d.csv", io.BytesIO(b"text\n" + b"x\n" * NUM_ROWS), max_row_bytes=100)
    return storage


@pytest.mark.parametrize(
    ("offset", "limit", "numbers"),
    [
        (0, 20, range(20)),
        (GROUP - 5, 10, range(GROUP - 5, GROUP + 5)),
        (GROUP - 5, 5, range(GROUP - 5, GROUP)),
        (GROUP, 5, range(GROUP, GROUP + 5)),
        (GROUP - 1, GROUP + 2, range(GROUP - 1, GROUP * 2 + 1)),
        (GROUP * 2 + 9, 20, [GROUP * 2 + 9]),
        (GROUP * 2 + 10, 20, []),
        (10**30, 20, []),
    ],
)
def test_pages_cross_row_groups(storage: Storage, offset: int, limit: int, numbers: range | list[int]) -> None:
    page = read_page(storage, "d", offset=offset, limit=limit)
    assert [row.row for row in page.rows] == list(numbers)
    assert [row.line for row in page.rows] == [number + 2 for number in numbers]
    assert page.num_rows == NUM_ROWS


def test_only_the_row_groups_that_are_needed_are_read(storage: Storage, tmp_path: Path) -> None:
    """The first row group is overwritten, and rows of the others are still there."""
    damaged = Storage(f"file://{tmp_path}")
    content = bytearray(storage.read_bytes(dataset_keys.rows_key("d")))
    content[4:40] = bytes(36)
    damaged.write_bytes(dataset_keys.rows_key("d"), bytes(content))
    assert len(read_page(damaged, "d", offset=GROUP, limit=20).rows) == 20
    with pytest.raises(ArtifactError, match="can't be read"):
        read_page(damaged, "d", offset=0, limit=20)


@pytest.mark.parametrize(("num_chars", "is_cut"), [(MAX_STRING_CHARS, False), (MAX_STRING_CHARS + 1, True)])
def test_rejected_answers_are_shown_and_cut(tmp_path: Path, num_chars: int, is_cut: bool) -> None:
    storage = Storage(f"file://{tmp_path}")
    content = b"prompt,chosen,rejected\na,b," + b"x" * num_chars
    intake.take(storage, "d", "d.csv", io.BytesIO(content), max_row_bytes=10_000)
    (row,) = read_page(storage, "d", offset=0, limit=1).rows
    assert [message.content for message in row.messages or ()] == ["a", "b"]
    assert (row.rejected, row.is_truncated) == (Message(Role.ASSISTANT, "x" * MAX_STRING_CHARS), is_cut)


def test_datasets_of_earlier_versions_can_be_read(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    intake.take(storage, "d", "d.csv", io.BytesIO(b"text\nx\n"), max_row_bytes=100)
    path = storage.path(dataset_keys.rows_key("d"))
    newer = ["rejected", "rejected_extra", "tools", "label", "chat_template_kwargs"]
    pq.write_table(pq.read_table(path).drop(newer), path)
    (row,) = read_page(storage, "d", offset=0, limit=1).rows
    assert (row.text, row.rejected) == ("x", None)


def test_missing_rows_are_an_error(storage: Storage) -> None:
    with pytest.raises(ArtifactError, match="missing from storage"):
        read_page(storage, "other", offset=0, limit=1)
