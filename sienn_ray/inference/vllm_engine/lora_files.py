"""Files of a core's adapters, on the disk of the copies that they are linked from."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sienn_ray.errors import EngineError

logger = logging.getLogger(__name__)

_PREFIX = "core-"
_LOCK = ".lock"


class LoraFiles:
    """A folder of one core's, which stays locked until its process ends, however that comes about.

    Each that is made removes those that processes have left behind.

    Args:
        parent: The folder of all cores of this machine, on the disk with the copies of adapters.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent / _LOCK):  # one that isn't locked yet must not look as if it were left behind
            _remove_leftovers(parent)
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self._lock = _opened(self._folder / _LOCK)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def add(self, content_hash: str, files: Path) -> Path:
        """Return a folder with an adapter's files, all of them; may take long, where they have to be copied.

        Raises:
            EngineError: They can't be copied.
        """
        own = self._folder / content_hash
        if own.is_dir():
            return own
        try:
            with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as partial:
                whole = Path(partial) / content_hash
                shutil.copytree(files, whole, copy_function=_link)
                whole.replace(own)
        except OSError as error:
            raise EngineError(
                f"the adapter's files can't be copied to {self._parent}: {error}; free space on that disk"
            ) from error
        return own

    def remove(self, content_hash: str) -> None:
        """Remove an adapter's files, if they are here."""
        shutil.rmtree(self._folder / content_hash, ignore_errors=True)

    def close(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            lock = _opened(folder / _LOCK)
        except OSError:  # it has been removed meanwhile, or is another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process lives
            continue
        else:
            logger.info("removing %s, which an engine that has crashed left behind", folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = _opened(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where the two folders are on different disks."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
