"""Artifacts under one fsspec URL: `file://`, `s3://`, `gs://` and whatever else fsspec reaches.

An object appears whole or not at all. A folder of files (an adapter) counts as published once its `manifest.json`
stands, which is written last and names every file with its size and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem

from sienn_ray.errors import ArtifactError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024
MANIFEST_NAME = "manifest.json"
_PARTIAL = ".partial"
_FIRST_TRIES, _S3FS_TRIES, _MEAN_WAIT_S = 5, 5, 10.0
_KEY_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True)
class FileEntry:
    """One file of a published folder."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Every file of a published folder."""

    files: tuple[FileEntry, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size_bytes for entry in self.files)

    @property
    def content_hash(self) -> str:
        """SHA-256 over names and contents, the same for the same files."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """Serialize to the bytes of `manifest.json`."""
        return json.dumps({"files": [asdict(entry) for entry in self.files]}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse the bytes of `manifest.json`.

        Raises:
            ArtifactError: The bytes are no manifest.
        """
        try:
            entries = tuple(
                FileEntry(str(entry["name"]), int(entry["size_bytes"]), str(entry["sha256"]))
                for entry in json.loads(data)["files"]
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{MANIFEST_NAME} can't be read ({error}); publish the artifact again") from error
        for entry in entries:
            _check_key(entry.name)
        return cls(entries)


def _check_key(key: str) -> None:
    if not all(_KEY_PART.fullmatch(part) for part in key.split("/")):
        raise ArtifactError(f"{key!r} is no storage key: parts of letters, digits, '.', '_' and '-' joined by '/'")


def _options(url: str, patience_s: float) -> dict[str, Any]:
    """Options of the file system."""
    # Other processes write what this one looks for: a checkpoint, say, in a folder that was listed before.
    options: dict[str, Any] = {"use_listings_cache": False}
    if _is_s3(url):
        # S3 signs links as it did before 2014 unless told otherwise, which newer regions refuse.
        options["config_kwargs"] = {"signature_version": "s3v4"}
        if patience_s:
            # In the options, since they travel with the file system to the processes that it is pickled to.
            options["config_kwargs"]["retries"] = {"mode": "standard", "total_max_attempts": _num_tries(patience_s)}
    return options


def _num_tries(patience_s: float) -> int:
    """Tries of botocore that take about so long in all: after five with growing waits, ten seconds apart on average.

    s3fs does each five times over.
    """
    return _FIRST_TRIES + math.ceil(patience_s / _S3FS_TRIES / _MEAN_WAIT_S)


def _is_s3(url: str) -> bool:
    return url.partition("://")[0] in {"s3", "s3a"}


class Storage:
    """Reads and writes artifacts below one URL.

    Args:
        url: Any URL that fsspec has a file system for.
        patience_s: About how long an object store that is out of reach is retried; 0 is what its client does by itself,
            some seconds, as long as a request may wait.
    """

    def __init__(self, url: str, patience_s: float = 0.0) -> None:
        self.url = url.rstrip("/")
        fs, root = fsspec.core.url_to_fs(self.url, **_options(self.url, patience_s))
        self.fs = fs
        self.root = str(root).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Return whether the artifacts are files on this machine."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, key: str) -> str:
        """Path of `key` in the file system, without the scheme.

        Raises:
            ArtifactError: The key is malformed, or would leave the root.
        """
        _check_key(key)
        return f"{self.root}/{key}"

    def arrow_filesystem(self) -> pa.fs.FileSystem:
        """The storage's file system for libraries that speak Arrow's interface (Ray Data, Ray Train)."""
        if self.is_local:
            return pa.fs.LocalFileSystem()
        return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(self.fs))

    def location(self, key: str) -> str:
        """Return the artifact's location for people: a plain path for local files, else the URL."""
        return self.path(key) if self.is_local else f"{self.url}/{key}"

    @contextmanager
    def writing(self, key: str) -> Iterator[IO[bytes]]:
        """Open `key` for writing; it appears when the block ends, and not at all when the block raises."""
        path = self.path(key)
        # Object stores show an object only when its upload is completed; a local file needs the rename for that.
        parent = path.rsplit("/", 1)[0]
        target = f"{parent}/.{uuid.uuid4().hex}{_PARTIAL}" if self.is_local else path
        self.fs.makedirs(parent, exist_ok=True)
        file = self.fs.open(target, "wb")
        try:
            yield cast(IO[bytes], file)
            file.close()
        except BaseException:
            self._discard(file, target)
            raise
        if self.is_local:
            self.fs.mv(target, path)

    def _discard(self, file: Any, target: str) -> None:
        if self.is_local:
            try:
                file.close()
            finally:  # on a full disk, closing fails as well
                self.fs.rm_file(target)
            return
        file.discard()
        file.closed = True  # else the garbage collector's close would complete the upload

    def reading(self, key: str) -> IO[bytes]:
        """Open `key` for reading.

        Raises:
            ArtifactError: There is no such object.
        """
        try:
            return cast(IO[bytes], self.fs.open(self.path(key), "rb"))
        except FileNotFoundError as error:
            raise ArtifactError(f"{self.location(key)} is missing from storage") from error

    def read_bytes(self, key: str) -> bytes:
        """Read a small object whole."""
        with self.reading(key) as file:
            return file.read()

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write a small object whole."""
        with self.writing(key) as file:
            file.write(data)

    def exists(self, key: str) -> bool:
        """Return whether the object or folder is there."""
        return bool(self.fs.exists(self.path(key)))

    def size_bytes(self, key: str) -> int:
        """Bytes of an object.

        Raises:
            ArtifactError: There is no such object.
        """
        try:
            return int(self.fs.size(self.path(key)))
        except FileNotFoundError as error:
            raise ArtifactError(f"{self.location(key)} is missing from storage") from error

    def changes(self, key: str) -> list[tuple[str, datetime]]:
        """Every object below a folder, by its key, with when it was last written; one that goes meanwhile is not."""
        changes = []
        for path, info in self.fs.find(self.path(key), detail=True).items():
            changed_at = self._changed_at(path, info)
            if changed_at is not None:
                changes.append((str(path).removeprefix(self.root).lstrip("/"), changed_at))
        return changes

    def _changed_at(self, path: str, info: Mapping[str, Any]) -> datetime | None:
        if isinstance(info.get("LastModified"), datetime):  # S3 says so in its list, without a request for each
            return cast(datetime, info["LastModified"])
        try:
            return cast(datetime, self.fs.modified(path))
        except FileNotFoundError:
            return None

    def names(self, key: str) -> list[str]:
        """Names of what is directly below a folder, in order; none where it isn't there."""
        try:
            paths = self.fs.ls(self.path(key), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def signed_url(self, key: str, lifetime_s: int, file_name: str) -> str | None:
        """A link to an object that works without credentials; None where the store, or who asks, can sign none.

        Args:
            key: The object.
            lifetime_s: Seconds that it works.
            file_name: What a browser saves it as.
        """
        path, disposition = self.path(key), f'attachment; filename="{file_name}"'
        # Others have no such option, and name the file after the object.
        more = {"ResponseContentDisposition": disposition} if _is_s3(self.url) else {}
        try:
            return str(self.fs.sign(path, expiration=lifetime_s, **more))
        except NotImplementedError:
            return None
        except Exception as error:  # each store's library has its own, as for credentials without a private key
            logger.warning("no link to %s can be signed: %s", self.url, error)
            return None

    def delete(self, key: str) -> None:
        """Delete an object, or a folder with all below it; silent when it isn't there.

        Whether it is there isn't asked first: what says no may not know what another process has written just now.
        """
        with suppress(FileNotFoundError):
            self.fs.rm(self.path(key), recursive=True)

    def delete_partials(self, key: str) -> None:
        """Delete what killed writers have left below a local folder; object stores show nothing of the kind."""
        if self.is_local:
            for path in paths_below(Path(self.path(key))):
                if path.name.endswith(_PARTIAL):
                    path.unlink(missing_ok=True)

    def publish(self, folder: Path, key: str) -> Manifest:
        """Upload the files of a local folder, and the manifest last."""
        entries = tuple(self._upload(path, f"{key}/{path.name}") for path in sorted(folder.iterdir()) if path.is_file())
        manifest = Manifest(entries)
        self.write_manifest(key, manifest)
        return manifest

    def write_manifest(self, key: str, manifest: Manifest) -> None:
        """Publish a folder of which all files are there."""
        self.write_bytes(f"{key}/{MANIFEST_NAME}", manifest.to_json())

    def _upload(self, path: Path, key: str) -> FileEntry:
        with path.open("rb") as source, self.writing(key) as target:
            size_bytes, sha256 = copy_hashed(source, target)
        return FileEntry(path.name, size_bytes, sha256)

    def manifest(self, key: str) -> Manifest:
        """The manifest of a published folder.

        Raises:
            ArtifactError: Nothing was published under this key.
        """
        return Manifest.from_json(self.read_bytes(f"{key}/{MANIFEST_NAME}"))

    def is_published(self, key: str) -> bool:
        """Return whether a folder is published, whatever was known of it before."""
        return self.exists(f"{key}/{MANIFEST_NAME}")

    def fetch(self, key: str, parent: Path, manifest: Manifest | None = None) -> Path:
        """Copy a published folder to this machine, checked against its manifest, unless that copy exists.

        Args:
            key: The folder's key.
            parent: Local folder that holds such copies.
            manifest: The folder's manifest, if it has been read already.

        Returns:
            The local folder, named after its content, so that an altered artifact never meets a stale copy.

        Raises:
            ArtifactError: A file is missing or differs from the manifest.
        """
        manifest = manifest or self.manifest(key)
        folder = parent / manifest.content_hash[:32]
        if folder.is_dir():
            return folder
        partial = parent / f".{folder.name}.{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            for entry in manifest.files:
                self._download(f"{key}/{entry.name}", entry, partial)
            partial.replace(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _download(self, key: str, entry: FileEntry, folder: Path) -> None:
        with self.reading(key) as source, (folder / entry.name).open("wb") as target:
            size_bytes, sha256 = copy_hashed(source, target)
        if (size_bytes, sha256) != (entry.size_bytes, entry.sha256):
            raise ArtifactError(
                f"{self.location(key)} has {size_bytes} bytes with SHA-256 {sha256}, its manifest says "
                f"{entry.size_bytes} and {entry.sha256}; the file was altered, train or publish it again"
            )


def paths_below(folder: Path) -> Iterator[Path]:
    """Files and folders below a local folder, which others may be deleting; `Path.rglob` raises an error then."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def copy_hashed(source: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    """Copy a stream in bounded memory; returns its size in bytes and its SHA-256 as hex."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()
