"""Serve applications of engines: their names, their running replicas, and loading an adapter ahead."""

from __future__ import annotations

import logging
import re
from typing import Any

logger = logging.getLogger(__name__)

APPLICATION_PREFIX = "engine-"
_READY = "RUNNING"
_PREFETCH_TIMEOUT_S = 60.0


def application_name(base_model: str) -> str:
    """Return the name of the Serve application that serves a base model."""
    return APPLICATION_PREFIX + re.sub(r"[^A-Za-z0-9._-]", "--", base_model)


def base_model_of(name: str) -> str:
    """Return the base model of an application's name. A hub id has at most one slash and never two dashes in a row."""
    return name.removeprefix(APPLICATION_PREFIX).replace("--", "/")


def num_running(application: Any) -> int:
    """Return the number of ready replicas in Serve's overview of an application."""
    return sum(
        count
        for deployment in application.deployments.values()
        for state, count in deployment.replica_states.items()
        if str(getattr(state, "value", state)) == _READY
    )


def prefetch(base_model: str, adapter_id: str, adapter_key: str) -> None:
    """Load an adapter into a running engine, so that its first request needn't wait; starts no engine.

    Errors are only logged: the first request loads the adapter as well.
    """
    name = application_name(base_model)
    try:
        from ray import serve  # takes a second, which a run's start has not

        application = serve.status().applications.get(name)
        if application is not None and num_running(application):
            handle = serve.get_app_handle(name).options(multiplexed_model_id=adapter_id)
            handle.prefetch.remote(adapter_id, adapter_key).result(timeout_s=_PREFETCH_TIMEOUT_S)
            logger.info("the engine of %s has loaded adapter %s", base_model, adapter_id)
    except Exception as error:
        logger.warning("adapter %s wasn't loaded ahead: %s: %s", adapter_id, type(error).__name__, error)
