from __future__ import annotations

import gc
import hashlib
import io
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import _GeneratorContextManager
from pathlib import Path
from typing import IO

import pyarrow.fs
import pytest

from sienn_ray.errors import ArtifactError
from sienn_ray.storage import CHUNK_BYTES, MANIFEST_NAME, FileEntry, Manifest, Storage, copy_hashed
from tests.support.fakes_object_store import FakeObjectStore, fake_object_store_url

FILES = {"adapter_config.json": b'{"r": 16}', "adapter_model.safetensors": bytes(range(256)) * 9000, "empty.txt": b""}


@pytest.fixture(params=["file", "objects"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Storage on a disk and in an object store."""
    return Storage(f"file://{tmp_path}/storage" if request.param == "file" else fake_object_store_url())


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A local folder of files to publish."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def keys(storage: Storage) -> list[str]:
    return sorted(path.removeprefix(f"{storage.root}/") for path in storage.fs.find(storage.root))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writing


def test_object_appears_when_the_block_ends(storage: Storage) -> None:
    with storage.writing("a/b.bin") as file:
        file.write(b"half")
        assert not storage.exists("a/b.bin")
        file.write(b" and half")
    assert storage.read_bytes("a/b.bin") == b"half and half"
    assert keys(storage) == ["a/b.bin"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("num_bytes", [0, 4, 6 * 1024**2])  # the last is more than one part of an upload
def test_nothing_is_left_when_the_block_raises(storage: Storage, error: BaseException, num_bytes: int) -> None:
    def write() -> None:
        with storage.writing("a/b.bin") as file:
            file.write(b"x" * num_bytes)
            raise error

    with pytest.raises(type(error)) as raised:
        write()
    assert raised.value is error
    del raised
    gc.collect()  # an upload that was only forgotten would be completed here
    assert keys(storage) == []


def test_failed_overwriting_keeps_the_old_content(storage: Storage) -> None:
    storage.write_bytes("a", b"old")

    def overwrite() -> None:
        with storage.writing("a") as file:
            file.write(b"ne")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        overwrite()
    assert storage.read_bytes("a") == b"old"


def test_reader_during_overwriting_sees_the_old_content(storage: Storage) -> None:
    storage.write_bytes("a", b"old")
    with storage.writing("a") as file:
        file.write(b"new")
        file.flush()
        assert storage.read_bytes("a") == b"old"
    assert storage.read_bytes("a") == b"new"


def test_concurrent_readers_see_whole_objects_only(storage: Storage) -> None:
    contents = [letter * 100_000 for letter in (b"a", b"b")]
    storage.write_bytes("key", contents[0])
    written = threading.Event()

    def read_until_written() -> set[bytes]:
        seen = {storage.read_bytes("key")}
        while not written.is_set():
            seen.add(storage.read_bytes("key"))
        return seen

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read_until_written) for _ in range(2)]
        for turn in range(40):
            storage.write_bytes("key", contents[turn % 2])
        written.set()
    assert set().union(*(reader.result() for reader in readers)) <= set(contents)


# Keys


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "../secret",
        "a/../../secret",
        "a/..",
        "/etc/passwd",
        "a//b",
        "a/",
        ".hidden",
        "a\\b",
        "..\\secret",
        "a\0b",
        "a b",
        "a\n",
        "s3://bucket/a",
        "%2e%2e/a",
        "é",
        "a*",
        "x" * 256,
    ],
)
def test_key_that_could_leave_the_root_is_refused(tmp_path: Path, key: str) -> None:
    storage = Storage(f"file://{tmp_path}/storage")
    for use in (storage.path, storage.exists, storage.delete, storage.reading, storage.location):
        with pytest.raises(ArtifactError, match="no storage key"):
            use(key)
    with pytest.raises(ArtifactError, match="no storage key"):
        storage.write_bytes(key, b"data")
    assert names(tmp_path) == []


@pytest.mark.parametrize("key", ["a", "a/b/c", "datasets/5f0c-1/rows.jsonl", "a..b", "_x", "A-1.tar.gz", "x" * 255])
def test_key_is_a_path_below_the_root(tmp_path: Path, key: str) -> None:
    storage = Storage(f"file://{tmp_path}/storage/")
    assert storage.path(key) == f"{tmp_path}/storage/{key}"
    storage.write_bytes(key, b"data")
    assert (tmp_path / "storage" / key).read_bytes() == b"data"


def test_location_is_a_path_for_files_and_a_url_elsewhere(tmp_path: Path) -> None:
    assert Storage(f"file://{tmp_path}").location("a/b") == f"{tmp_path}/a/b"
    assert Storage("memory://bucket/sienn/").location("a/b") == "memory://bucket/sienn/a/b"


def test_arrow_reads_what_was_written(storage: Storage) -> None:
    storage.write_bytes("a/rows.jsonl", b"{}\n")
    filesystem = storage.arrow_filesystem()
    assert isinstance(filesystem, pyarrow.fs.LocalFileSystem) is storage.is_local
    with filesystem.open_input_stream(storage.path("a/rows.jsonl")) as stream:
        assert stream.read() == b"{}\n"


# Reading and deleting


@pytest.mark.parametrize("url", ["memory://bucket/root", "s3://bucket/root"])
def test_listings_are_never_old(url: str) -> None:
    # Two processes: one lists a folder, the other adds to it.
    assert Storage(url).fs.dircache.use_listings_cache is False


def test_missing_object_is_an_artifact_error_with_its_location(storage: Storage) -> None:
    assert not storage.exists("a/b")
    with pytest.raises(ArtifactError) as error:
        storage.read_bytes("a/b")
    assert error.value.message.startswith(storage.location("a/b"))


@pytest.mark.parametrize(
    ("signing", "link"),
    [
        ("https://store", "https://store/{path}?expires=60"),
        (None, None),
        (AttributeError("you need a private key to sign credentials"), None),
    ],
)
def test_link_to_an_object_where_the_store_can_sign_one(
    monkeypatch: pytest.MonkeyPatch, signing: str | Exception | None, link: str | None
) -> None:
    storage = Storage(fake_object_store_url())
    monkeypatch.setattr(FakeObjectStore, "signing", signing)
    expected = link and link.format(path=storage.path("a/model.gguf"))
    assert storage.signed_url("a/model.gguf", 60, "model.gguf") == expected


def test_delete_removes_an_object_or_a_folder_and_is_silent_otherwise(storage: Storage) -> None:
    for key in ("a/1", "a/b/2", "ab/3"):
        storage.write_bytes(key, b"data")
    storage.delete("a/missing")
    storage.delete("missing/folder")
    assert keys(storage) == ["a/1", "a/b/2", "ab/3"]
    storage.delete("a")
    storage.delete("a")
    assert keys(storage) == ["ab/3"]
    storage.delete("ab/3")
    assert keys(storage) == []


# Publishing and fetching


@pytest.fixture(params=["file", "objects", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Every kind of storage, fsspec's own memory included."""
    urls = {
        "file": f"file://{tmp_path}/storage",
        "objects": fake_object_store_url(),
        "memory": f"memory://{uuid.uuid4().hex}",
    }
    return Storage(urls[request.param])


def test_published_folder_comes_back_as_it_was(store: Storage, artifact: Path, tmp_path: Path) -> None:
    (artifact / "subfolder").mkdir()  # only files are published
    published = store.publish(artifact, "adapters/1")
    fetched = store.fetch("adapters/1", tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == FILES
    assert store.manifest("adapters/1") == published
    assert published.size_bytes == sum(map(len, FILES.values()))
    assert [(entry.name, entry.size_bytes, entry.sha256) for entry in published.files] == [
        (name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(FILES.items())
    ]


def test_nothing_counts_as_published_without_its_manifest(store: Storage, artifact: Path, tmp_path: Path) -> None:
    store.publish(artifact, "adapters/1")
    store.delete(f"adapters/1/{MANIFEST_NAME}")
    with pytest.raises(ArtifactError, match=r"adapters/1/manifest\.json is missing"):
        store.manifest("adapters/1")
    with pytest.raises(ArtifactError, match=r"adapters/1/manifest\.json is missing"):
        store.fetch("adapters/1", tmp_path / "cache")


class _FailingStorage(Storage):
    """Runs out of room at the second file."""

    def writing(self, key: str) -> _GeneratorContextManager[IO[bytes]]:
        if key.endswith(sorted(FILES)[1]):
            raise OSError("no space left")
        return super().writing(key)


def test_broken_off_publishing_is_not_visible(artifact: Path, tmp_path: Path) -> None:
    storage = _FailingStorage(f"file://{tmp_path}/storage")
    with pytest.raises(OSError, match="no space left"):
        storage.publish(artifact, "adapters/1")
    assert not storage.exists(f"adapters/1/{MANIFEST_NAME}")


@pytest.mark.parametrize("altered", [b'{"r": 17}', b'{"r": 16} ', b""])
def test_altered_file_is_refused(store: Storage, artifact: Path, tmp_path: Path, altered: bytes) -> None:
    store.publish(artifact, "adapters/1")
    store.write_bytes("adapters/1/adapter_config.json", altered)
    with pytest.raises(ArtifactError, match=r"adapter_config\.json has .* was altered"):
        store.fetch("adapters/1", tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def test_missing_file_is_refused(store: Storage, artifact: Path, tmp_path: Path) -> None:
    store.publish(artifact, "adapters/1")
    store.delete("adapters/1/empty.txt")
    with pytest.raises(ArtifactError, match=r"empty\.txt is missing"):
        store.fetch("adapters/1", tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def test_second_fetch_takes_the_copy_that_is_there(store: Storage, artifact: Path, tmp_path: Path) -> None:
    store.publish(artifact, "adapters/1")
    first = store.fetch("adapters/1", tmp_path / "cache")
    for name in FILES:
        store.delete(f"adapters/1/{name}")
    assert store.fetch("adapters/1", tmp_path / "cache") == first
    assert names(tmp_path / "cache") == [first.name]


def test_same_content_shares_a_copy_and_new_content_gets_its_own(
    store: Storage, artifact: Path, tmp_path: Path
) -> None:
    store.publish(artifact, "adapters/1")
    store.publish(artifact, "adapters/2")
    first = store.fetch("adapters/1", tmp_path / "cache")
    assert store.fetch("adapters/2", tmp_path / "cache") == first
    (artifact / "adapter_config.json").write_bytes(b'{"r": 8}')
    store.publish(artifact, "adapters/1")
    second = store.fetch("adapters/1", tmp_path / "cache")
    assert second != first
    assert (second / "adapter_config.json").read_bytes() == b'{"r": 8}'


class _OvertakenStorage(Storage):
    """While it fetches, another process fetches the same and is done first."""

    def __init__(self, url: str, cache: Path) -> None:
        super().__init__(url)
        self._cache = cache
        self.overtaken_by: Path | None = None

    def reading(self, key: str) -> IO[bytes]:
        if not key.endswith(MANIFEST_NAME) and self.overtaken_by is None:
            self.overtaken_by = Storage(self.url).fetch(key.rsplit("/", 1)[0], self._cache)
        return super().reading(key)


def test_overtaken_fetch_takes_the_other_copy(artifact: Path, tmp_path: Path) -> None:
    storage = _OvertakenStorage(f"file://{tmp_path}/storage", tmp_path / "cache")
    storage.publish(artifact, "adapters/1")
    folder = storage.fetch("adapters/1", tmp_path / "cache")
    assert folder == storage.overtaken_by
    assert names(tmp_path / "cache") == [folder.name]
    assert names(folder) == sorted(FILES)


def test_concurrent_fetches_agree(storage: Storage, artifact: Path, tmp_path: Path) -> None:
    storage.publish(artifact, "adapters/1")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: storage.fetch("adapters/1", tmp_path / "cache"), range(8)))
    assert len(set(folders)) == 1
    assert names(tmp_path / "cache") == [folders[0].name]
    assert names(folders[0]) == sorted(FILES)


# Manifests


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"files": null}',
        b'{"files": [3]}',
        b'{"files": [{"name": "a"}]}',
        b'{"files": [{"name": "a", "size_bytes": "many", "sha256": ""}]}',
    ],
)
def test_broken_manifest_is_an_artifact_error(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="publish the artifact again"):
        Manifest.from_json(data)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "", "a\\b", "a\0b", "..", ["a"], {}])
def test_manifest_with_a_name_outside_its_folder_is_refused(name: object) -> None:
    entry = {"name": name, "size_bytes": 1, "sha256": "0" * 64}
    with pytest.raises(ArtifactError):
        Manifest.from_json(json.dumps({"files": [entry]}).encode())


def test_manifest_round_trip_and_hash() -> None:
    manifest = Manifest((FileEntry("a", 1, "0" * 64), FileEntry("b", 2, "1" * 64)))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest(manifest.files).content_hash == manifest.content_hash
    renamed = Manifest((FileEntry("c", 1, "0" * 64), manifest.files[1]))
    assert renamed.content_hash != manifest.content_hash


class _CountedReads(io.BytesIO):
    largest_read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        self.largest_read_bytes = max(self.largest_read_bytes, len(chunk))
        return chunk


def test_copy_hashes_in_bounded_memory() -> None:
    data = bytes(range(251)) * 20_000
    source, target = _CountedReads(data), io.BytesIO()
    assert copy_hashed(source, target) == (len(data), hashlib.sha256(data).hexdigest())
    assert target.getvalue() == data
    assert source.largest_read_bytes <= CHUNK_BYTES < len(data)
