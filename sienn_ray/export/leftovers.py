"""Orphans of exports: folders of those that were never finished."""

from __future__ import annotations

from datetime import datetime

from sienn_ray.export.options import FOLDER_KEY
from sienn_ray.storage import MANIFEST_NAME, Storage


def unfinished(storage: Storage, older_than: datetime) -> list[str]:
    """Keys of the folders without a manifest in which nothing has changed since `older_than`.

    A finished export is somebody's, and a wrong database URL must not cost it.

    Args:
        storage: Where exports are.
        older_than: The moment, with its zone.
    """
    newest: dict[str, datetime] = {}
    finished = set()
    for key, changed_at in storage.changes(FOLDER_KEY):
        parts = key.split("/")
        if len(parts) < 4:
            continue
        folder = "/".join(parts[:3])
        newest[folder] = max(changed_at, newest.get(folder, changed_at))
        if parts[3] == MANIFEST_NAME:
            finished.add(folder)
    return sorted(folder for folder, changed_at in newest.items() if folder not in finished and changed_at < older_than)
