"""Publication of an export: it becomes visible whole, or not at all.

Files which took long are kept in a folder of their own until the export is there, so that a run which is lost doesn't
make them again.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

from typing_extensions import Buffer

from sienn_ray.errors import StorageFullError
from sienn_ray.export.archive import copied
from sienn_ray.export.sink import Sink, Write
from sienn_ray.storage import FileEntry, Manifest, Storage

_PARTS = "parts"
# Where a disk is full, by what the operating system says.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Publication:
    """The folder of one export.

    Args:
        storage: Where it is.
        key: Its key.
    """

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage = storage
        self._key = key

    @property
    def parts_key(self) -> str:
        """Key of the folder with the files that are kept."""
        return f"{self._key}/{_PARTS}"

    @property
    def kept_bytes(self) -> int:
        """Bytes of the files that are kept."""
        return sum(self._storage.size_bytes(key) for key, _ in self._storage.changes(self.parts_key))

    def clear(self) -> None:
        """Clear away what a run that was killed had begun to write."""
        self._storage.delete_partials(self._key)

    def check_room(self, size_bytes: int) -> None:
        """Refuse early what a local disk has no room for.

        Raises:
            StorageFullError: It has none.
        """
        if not self._storage.is_local:
            return
        free_bytes = shutil.disk_usage(self._storage.root).free
        if free_bytes < size_bytes:
            raise StorageFullError(
                f"the export takes {_gigabytes(size_bytes)} and storage has {_gigabytes(free_bytes)} left; delete "
                "exports or jobs (GET /api/exports/{job_id} lists exports), or choose a smaller quantization"
            )

    def kept(self, name: str, size_bytes: int, write: Write) -> Write:
        """A writer that keeps what it writes, or copies what an earlier run has kept; both count in bytes.

        Args:
            name: The file's name.
            size_bytes: Its size; one of another size, as a machine's sudden end may leave, is written anew.
            write: Writes it.
        """
        key = f"{self.parts_key}/{name}"

        def write_or_copy(file: Sink) -> Iterator[int]:
            if self._storage.exists(key) and self._storage.size_bytes(key) == size_bytes:
                yield from copied(self._storage, key)(file)
                return
            with self._storage.writing(key) as part:
                yield from write(_Both(part, file))

        return write_or_copy

    def publish(self, name: str, write: Write) -> Iterator[int]:
        """Write the export's one file, its manifest behind it, and clear away what was kept; gives what `write` gives.

        Raises:
            StorageFullError: There is no room left.
        """
        with (
            room_said(),
            self._storage.writing(f"{self._key}/{name}") as file,
            closing(HashingFile(file)) as hashed,
        ):
            yield from write(hashed)
            entry = FileEntry(name, hashed.tell(), hashed.sha256)
        self._storage.write_manifest(self._key, Manifest((entry,)))
        self._storage.delete(self.parts_key)


class _Both:
    """Two files that get the same."""

    def __init__(self, first: Sink, second: Sink) -> None:
        self._first = first
        self._second = second

    def write(self, data: Buffer, /) -> int:
        self._first.write(data)
        return self._second.write(data)

    def tell(self) -> int:
        return self._second.tell()

    def flush(self) -> None:
        """Nothing: files flush when they are closed."""


class HashingFile:
    """A file for writing that knows the SHA-256 of what was written, which another thread computes meanwhile.

    What is written must not be changed afterwards.
    """

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._hashing: Future[None] | None = None

    def write(self, data: Buffer, /) -> int:
        """Write, and hash."""
        view = memoryview(data)
        self._wait()
        self._hashing = self._thread.submit(self._digest.update, view)
        self._file.write(view)
        self._size_bytes += view.nbytes
        return view.nbytes

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()

    def close(self) -> None:
        """End the thread; the file is closed by whoever opened it."""
        self._thread.shutdown()

    def tell(self) -> int:
        """Bytes so far."""
        return self._size_bytes

    def flush(self) -> None:
        """Nothing: the file flushes when it is closed."""

    @property
    def sha256(self) -> str:
        """Of all bytes so far, as hex."""
        self._wait()
        return self._digest.hexdigest()


@contextmanager
def room_said() -> Iterator[None]:
    """Say in a user's words that the disk is full.

    Raises:
        StorageFullError: It is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFullError(
            f"storage is full ({error.strerror}); nothing was kept. Delete exports or jobs and export again"
        ) from error


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"
