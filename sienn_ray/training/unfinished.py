"""Checkpoints of which a run wrote a part, and that nobody would ever read."""

from __future__ import annotations

import json
import logging
import re

from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

# Ray Train's list of the checkpoints that it can resume from, which is written when one is whole.
_LIST = "checkpoint_manager_snapshot.json"
_PREFIX = "checkpoint_"


def delete_unfinished_checkpoints(storage: Storage, key: str) -> None:
    """Delete what Ray Train doesn't list; only while no worker of the run is there to write any.

    A store that can't be read or written now, as a full one may be, is left alone: the run has a reason of its own to
    fail with.

    Args:
        storage: Where checkpoints are.
        key: The run's folder.
    """
    try:
        if not storage.exists(key):
            return
        listed = storage.read_bytes(f"{key}/{_LIST}").decode() if storage.exists(f"{key}/{_LIST}") else "{}"
        json.loads(listed)  # one that is itself in parts would leave out some that are whole
        kept = set(re.findall(rf"{_PREFIX}[^\"/]+", listed))
        for path in storage.fs.ls(storage.path(key), detail=False):
            name = str(path).rstrip("/").rsplit("/", 1)[-1]
            if name.startswith(_PREFIX) and name != _LIST and name not in kept:
                storage.delete(f"{key}/{name}")
                logger.info("deleted %s, of which only a part was written", name)
    except Exception as error:  # stores raise what they like
        logger.warning("unfinished checkpoints in %s stay: %s", key, error)
