"""Temporary folders that name their process, so that a later one can clear away what a killed one has left."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

# With the process id, but for those of an earlier version.
_NAME = re.compile(r"sienn-(?:adapter|checkpoint)-(?:(\d+)-)?[a-z0-9_]{8}")
_AGE_S = 3600.0
_AGE_WITHOUT_PROCESS_S = 86400.0


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """A folder that goes when the context ends.

    Args:
        kind: `adapter` or `checkpoint`.
    """
    with tempfile.TemporaryDirectory(prefix=f"sienn-{kind}-{os.getpid()}-") as folder:
        yield Path(folder)


def clear_left_folders() -> None:
    """Delete such folders of this user whose process is dead, and in which nothing has changed for an hour."""
    for path in Path(tempfile.gettempdir()).glob("sienn-*"):
        try:
            if _is_left(path):
                shutil.rmtree(path)
                logger.info("deleted %s, which a killed process has left", path)
        except OSError as error:  # a run goes on without the room
            logger.warning("%s can't be cleared away: %s", path, error)


def _is_left(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if match is None or path.is_symlink() or path.stat().st_uid != os.getuid():
        return False
    changed_at = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
    age_s = time.time() - changed_at
    if match[1] is None:
        return age_s > _AGE_WITHOUT_PROCESS_S
    return age_s > _AGE_S and not _is_alive(int(match[1]), changed_at)


def _is_alive(pid: int, changed_at: float) -> bool:
    """Whether the process that wrote last at that moment is there; its id may have been given to another one since."""
    try:
        return bool(psutil.Process(pid).create_time() <= changed_at)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
