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


def newest_checkpoint(storage: Storage, key: str) -> str | None:
    """Return the name of the newest checkpoint that a run can resume from; None if there is none, or it isn't known.

    Args:
        storage: Where checkpoints are.
        key: The run's folder.
    """
    try:
        listed = storage.read_bytes(f"{key}/{_LIST}").decode()
        json.loads(listed)
    except Exception:  # stores raise what they like
        return None
    return max((name for name in _names_in(listed) if name != _LIST), default=None)


def has_checkpoints(storage: Storage, key: str) -> bool:
    """Return whether a run has a checkpoint to resume from; yes where storage can't be asked."""
    try:
        storage.names(key)
    except Exception:  # stores raise what they like
        return True
    return newest_checkpoint(storage, key) is not None


def _names_in(listed: str) -> set[str]:
    return set(re.findall(rf"{_PREFIX}[^\"/]+", listed))


def delete_unfinished_checkpoints(storage: Storage, key: str) -> None:
    """Delete what Ray Train doesn't list; only while no worker of the run is there to write any.

    Only a list that names a checkpoint which is there is evidence: without one nothing is deleted, since another
    version of Ray may keep its list elsewhere. A store that can't be read or written now, as a full one may be, is left
    alone as well: the run has a reason of its own to fail with.

    Args:
        storage: Where checkpoints are.
        key: The run's folder.
    """
    try:
        names = storage.names(key)
        if _LIST not in names:
            return
        listed = storage.read_bytes(f"{key}/{_LIST}").decode()
        json.loads(listed)  # one that is itself in parts would leave out some that are whole
        kept = _names_in(listed)
        if not kept.intersection(names):
            return
        for name in names:
            if name.startswith(_PREFIX) and name != _LIST and name not in kept:
                storage.delete(f"{key}/{name}")
                logger.info("deleted %s, of which only a part was written", name)
    except Exception as error:  # stores raise what they like
        logger.warning("unfinished checkpoints in %s stay: %s", key, error)
