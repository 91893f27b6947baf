from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sienn_ray.errors import StorageFullError
from sienn_ray.export.publication import Publication
from sienn_ray.export.sink import Sink, Write
from sienn_ray.storage import Storage
from tests.support.fakes_object_store import fake_object_store_url

KEY = "exports/job-1/export-1"


@pytest.fixture(params=["local", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}" if request.param == "local" else fake_object_store_url())


def writer(*texts: bytes, fails: bool = False) -> Write:
    def write(file: Sink) -> Iterator[int]:
        for text in texts:
            yield file.write(text)
        if fails:
            raise RuntimeError("the process was killed here")

    return write


def test_file_is_published_with_its_hash(storage: Storage) -> None:
    assert list(Publication(storage, KEY).publish("model.gguf", writer(b"ab", b"cde"))) == [2, 3]
    [entry] = storage.manifest(KEY).files
    assert (entry.name, entry.size_bytes) == ("model.gguf", 5)
    assert entry.sha256 == hashlib.sha256(b"abcde").hexdigest()
    assert storage.read_bytes(f"{KEY}/model.gguf") == b"abcde"


def both(*writes: Write) -> Write:
    def write(file: Sink) -> Iterator[int]:
        for each in writes:
            yield from each(file)

    return write


def test_a_lost_run_leaves_nothing_visible_and_its_files_are_not_made_again(storage: Storage) -> None:
    publication = Publication(storage, KEY)
    first = publication.kept("first", 1, writer(b"1"))
    second = publication.kept("second", 1, writer(b"2", fails=True))
    with pytest.raises(RuntimeError):
        list(publication.publish("all.zip", both(first, second)))
    assert storage.exists(f"{publication.parts_key}/first")
    assert not storage.exists(f"{publication.parts_key}/second")
    assert not storage.exists(f"{KEY}/all.zip")
    assert not storage.is_published(KEY)
    again = Publication(storage, KEY)
    assert again.kept_bytes == 1
    first = again.kept("first", 1, writer(b"not written again", fails=True))
    assert list(again.publish("all.zip", both(first, writer(b"23")))) == [1, 2]
    assert storage.read_bytes(f"{KEY}/all.zip") == b"123"


def test_kept_file_of_another_size_is_written_anew(storage: Storage) -> None:
    publication = Publication(storage, KEY)
    storage.write_bytes(f"{publication.parts_key}/first", b"12")
    list(publication.publish("all.zip", publication.kept("first", 3, writer(b"123"))))
    assert storage.read_bytes(f"{KEY}/all.zip") == b"123"


def test_what_a_killed_run_had_begun_is_cleared_away(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    publication = Publication(storage, KEY)
    publication.clear()
    subprocess.run([sys.executable, "-c", _KILLED, storage.url], check=True, timeout=120)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    publication.clear()
    list(publication.publish("model.gguf", writer(b"whole")))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["manifest.json", "model.gguf"]


def test_what_was_kept_is_gone_once_the_export_is_there(storage: Storage) -> None:
    publication = Publication(storage, KEY)
    list(publication.publish("all.zip", publication.kept("first", 1, writer(b"1"))))
    assert not storage.exists(publication.parts_key)
    assert publication.kept_bytes == 0
    assert storage.is_published(KEY)


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    with pytest.raises(StorageFullError, match=r"takes 1000000000\.00 GB and storage has .* smaller quantization"):
        Publication(storage, KEY).check_room(10**18)
    assert list(tmp_path.iterdir()) == []


_KILLED = """
import os, sys
from sienn_ray.export.publication import Publication
from sienn_ray.storage import Storage
publication = Publication(Storage(sys.argv[1]), "exports/job-1/export-1")
def write(file):
    yield file.write(b"half")
    os._exit(0)
list(publication.publish("model.gguf", publication.kept("first", 8, write)))
"""
_FILL = """
import resource, signal, sys
from sienn_ray.export.publication import Publication
from sienn_ray.storage import Storage
from sienn_ray.errors import StorageFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def write(file):
    for _ in range(100):
        yield file.write(bytes(10_000))
try:
    list(Publication(Storage(sys.argv[1]), "exports/job-1/export-1").publish("model.gguf", write))
except StorageFullError as error:
    print(error.message)
"""


def test_full_storage_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files fails where a full disk does."""
    run = subprocess.run(
        [sys.executable, "-c", _FILL, f"file://{tmp_path}"], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.startswith("storage is full (File too large); nothing was kept. Delete exports or jobs")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
