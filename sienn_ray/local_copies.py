"""Copies of published folders on this machine's disk, bounded in bytes, which all its processes share."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from pathlib import Path

from sienn_ray.storage import Manifest, Storage, paths_below

logger = logging.getLogger(__name__)

_COPY = re.compile(r"[0-9a-f]{32}")
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.[0-9a-f]{32}")
# A transfer that is under way writes all the time.
_PARTIAL_AGE_S = 3600.0
# Copies that a process has taken last count as in use; an engine reads a few at a time, an export one.
_MAX_HELD = 32


class LocalCopies:
    """LRU cache of folders on disk.

    A copy is in use while a process has it among those that it has taken last; it holds a lock on it then, which goes
    with the process. One in use is never evicted, even if the limit is passed.

    Args:
        folder: Where copies are.
        max_bytes: Bytes of all copies together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, int] = OrderedDict()
        self._verified: set[str] = set()
        self._mutex = threading.Lock()
        self._is_tidy = False
        weakref.finalize(self, _release_all, self._held)

    def fetch(self, storage: Storage, key: str) -> Path:
        """Copy a published folder to this machine, unless a copy is there that its manifest fits.

        Raises:
            ArtifactError: A file is missing or differs from the manifest.
        """
        manifest = storage.manifest(key)
        name = manifest.content_hash[:32]
        copy = self._folder / name
        self._hold(name)
        # Whether a copy of an earlier process has survived the machine's end is looked at once.
        if name not in self._verified and copy.is_dir() and not _is_whole(copy, manifest):
            logger.warning("the copy of %s was altered; it is fetched again", key)
            self._discard(name)
        if not self._is_tidy or not copy.is_dir():
            self._is_tidy = True
            self._make_room(0 if copy.is_dir() else manifest.size_bytes)
        fetched = storage.fetch(key, self._folder, manifest)
        self._verified.add(name)
        return fetched

    def _hold(self, name: str) -> None:
        """Lock a copy against eviction by any process, and note that it is used now."""
        with self._mutex:
            if name in self._held:
                self._held.move_to_end(name)
            else:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._held[name] = _shared_lock(self._lock_path(name))
            os.utime(self._held[name])
            while len(self._held) > _MAX_HELD:
                os.close(self._held.popitem(last=False)[1])

    def _make_room(self, size_bytes: int) -> None:
        """Evict the copies used least lately until one of `size_bytes` fits, and clear leftovers of transfers."""
        names = [path.name for path in self._folder.iterdir()]
        for name in filter(_PARTIAL.fullmatch, names):
            if time.time() - _changed_at(self._folder / name) > _PARTIAL_AGE_S:
                shutil.rmtree(self._folder / name, ignore_errors=True)
        sizes = {name: _size_bytes(self._folder / name) for name in names if _COPY.fullmatch(name)}
        total_bytes = sum(sizes.values())
        for name in sorted(sizes, key=self._used_at):
            has_room = shutil.disk_usage(self._folder).free > size_bytes
            if has_room and total_bytes + size_bytes <= self._max_bytes:
                return
            if self._evict(name):
                total_bytes -= sizes[name]

    def _evict(self, name: str) -> bool:
        path = self._lock_path(name)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            self._discard(name)
            path.unlink(missing_ok=True)
            return True
        finally:
            os.close(lock)

    def _discard(self, name: str) -> None:
        # Renamed first: what is deleted in part must not be taken for a copy.
        partial = self._folder / f".{name}.{uuid.uuid4().hex}"
        (self._folder / name).replace(partial)
        shutil.rmtree(partial, ignore_errors=True)

    def _used_at(self, name: str) -> float:
        try:
            return self._lock_path(name).stat().st_mtime
        except FileNotFoundError:  # of an earlier version
            return 0.0

    def _lock_path(self, name: str) -> Path:
        return self._folder / f".{name}.lock"


def _shared_lock(path: Path) -> int:
    """A file descriptor that holds a shared lock; waits while the copy is being evicted."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            if os.path.samestat(path.stat(), os.fstat(lock)):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # it went together with the copy


def _release_all(held: OrderedDict[str, int]) -> None:
    while held:
        os.close(held.popitem()[1])


def _is_whole(copy: Path, manifest: Manifest) -> bool:
    for entry in manifest.files:
        path = copy / entry.name
        if not path.is_file() or path.stat().st_size != entry.size_bytes:
            return False
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                return False
    return True


def _paths(folder: Path) -> list[Path]:
    return [folder, *paths_below(folder)]


def _size_bytes(folder: Path) -> int:
    sizes = 0
    for path in _paths(folder):
        try:
            sizes += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # another process evicts it
            continue
    return sizes


def _changed_at(folder: Path) -> float:
    try:
        return max(path.stat().st_mtime for path in _paths(folder))
    except FileNotFoundError:
        return time.time()
