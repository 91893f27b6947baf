"""Where the files of an export are put together, and how it becomes visible: whole, or not at all.

What is finished stays in a folder of its own until the export is there, so that a run which is lost goes on from there.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

from typing_extensions import Buffer

from sienn_ray.errors import StorageFullError
from sienn_ray.export.sink import Sink
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
        """Key of the folder with the finished files that will be put into the archive."""
        return f"{self._key}/{_PARTS}"

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

    def part(self, name: str, write: Callable[[Sink], Iterable[int]]) -> Iterator[int]:
        """Write a file for the archive, unless an earlier run has; gives what `write` gives.

        Args:
            name: Its name.
            write: Writes it, and tells of its progress.
        """
        key = f"{self.parts_key}/{name}"
        if self._storage.exists(key):
            return
        with room_said(), self._storage.writing(key) as file:
            yield from write(file)

    def publish(self, name: str, write: Callable[[Sink], Iterable[int]]) -> Iterator[int]:
        """Write the export's one file, its manifest behind it, and clear away the parts; gives what `write` gives."""
        with (
            room_said(),
            self._storage.writing(f"{self._key}/{name}") as file,
            closing(HashingFile(file)) as hashed,
        ):
            yield from write(hashed)
            entry = FileEntry(name, hashed.tell(), hashed.sha256)
        self._storage.write_manifest(self._key, Manifest((entry,)))
        self._storage.delete(self.parts_key)


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
