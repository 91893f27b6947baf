"""The address that a service is reached at, and the key of its first admin."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

from ray.serve.context import _get_global_client

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord
from sienn_ray.access.principals import ADMIN_OWNER, Scope
from sienn_ray.jobs.client.tracker_client import ask
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

ADMIN_KEY_FILE = "admin-key"


def serves_host() -> str | None:
    """Return the address that Ray Serve's proxies listen on, or None where Serve doesn't say."""
    try:
        options = _get_global_client().get_serve_details()["http_options"]
        return str(options["host"]) if options and options.get("host") else None
    except Exception:  # not an interface that Serve keeps stable; who asks takes the careful way then
        logger.warning("Serve doesn't say which address it listens on", exc_info=True)
        return None


def make_first_admin_key(settings: Settings) -> Path | None:
    """Make a key for the first admin where requests need one and nobody has one yet.

    Returns:
        The file that has it, which only this user may read.
    """
    if not settings.is_auth_on or settings.admin_key is not None or ask(Tracker.api_keys, 1).records:
        return None
    key = ApiKey.random()
    path = settings.home / ADMIN_KEY_FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key.text + "\n")
    record = ApiKeyRecord(
        id=str(uuid.uuid4()),
        prefix=key.prefix,
        sha256=key.sha256,
        name="first admin",
        owner=ADMIN_OWNER,
        scopes=frozenset({Scope.ADMIN}),
        created_at=utc_now(),
    )
    ask(Tracker.add_api_key, record)
    return path
