"""Deletion of orphans in storage, which uploads left when their server was killed."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection
from datetime import datetime

from sienn_ray.datasets import dataset_keys
from sienn_ray.storage import Storage

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
logger = logging.getLogger(__name__)


def sweep(storage: Storage, known_ids: Collection[str], older_than: datetime) -> list[str]:
    """Delete the folders of uploads that were never finished.

    A folder goes if it belongs to no record, nothing in it has changed since `older_than`, and it isn't a whole
    dataset: those are somebody's data, and a wrong database URL must not cost it. A whole one goes, too, if it is
    marked: nobody was told that it was taken.

    Args:
        storage: Where datasets are.
        known_ids: Ids of all records.
        older_than: The moment, with its zone.

    Returns:
        Ids whose folders were deleted.
    """
    ids = [name for name in storage.names(dataset_keys.FOLDER_KEY) if _ID.fullmatch(name)]  # others' files are theirs
    return [dataset_id for dataset_id in sorted(set(ids) - set(known_ids)) if _clear(storage, dataset_id, older_than)]


def _clear(storage: Storage, dataset_id: str, older_than: datetime) -> bool:
    # Another replica may be at the same folder, or an upload that ends at this moment.
    with contextlib.suppress(FileNotFoundError):
        if _is_leftover(storage, dataset_id, older_than):
            storage.delete(dataset_keys.folder_key(dataset_id))
            return True
    return False


def _is_leftover(storage: Storage, dataset_id: str, older_than: datetime) -> bool:
    folder = storage.path(dataset_keys.folder_key(dataset_id))
    files = [str(path) for path in storage.fs.find(folder)]
    is_whole = {storage.path(key(dataset_id)) for key in (dataset_keys.file_key, dataset_keys.rows_key)} <= set(files)
    if is_whole and storage.path(dataset_keys.unregistered_key(dataset_id)) not in files:
        logger.warning("%s is a whole dataset without a record; it is left alone", folder)
        return False
    # Object stores know folders only by what is in them.
    return all(storage.fs.modified(path) < older_than for path in [*files, *([folder] if storage.is_local else [])])
