"""The kind that an engine is started as: the chosen one, or after a failure the built-in one for a while."""

from __future__ import annotations

import logging
from typing import Any

from deployments.engine_failures import VllmPause, failure_of, has_failed, is_loss
from deployments.engine_versions import EngineVersion, version_of
from sienn_ray.inference.applications import EngineKey, kind_of
from sienn_ray.settings import AUTO_ENGINE, EngineKind, Settings

logger = logging.getLogger(__name__)

_MAX_REASON_CHARS = 500


def must_start(application: Any | None, settings: Settings) -> bool:
    """Return whether an engine isn't there, or has failed for good.

    Serve tries again and again to start what has run before; where there is another kind, that isn't waited for.
    """
    if application is None or str(application.status.value) in {"DEPLOY_FAILED", "NOT_STARTED"}:
        return True
    return has_fallback(application, settings) and has_failed(application)


def has_fallback(application: Any | None, settings: Settings) -> bool:
    """Return whether there is another kind of engine for one that can't be started."""
    return settings.engine == AUTO_ENGINE and application is not None and kind_of(application) is EngineKind.VLLM


def kind_at_start(
    key: EngineKey,
    chosen: EngineKind,
    application: Any | None,
    version: EngineVersion,
    settings: Settings,
    now_s: float,
) -> tuple[EngineKind, VllmPause | None]:
    """Return the kind that an engine is to be started as, and the pause of vLLM that its application tells then.

    vLLM is tried again after a pause, when the engine is started anyway: one that answers is never ended for it. Each
    failure makes the pause longer, so that two kinds that both fail don't take turns.

    Args:
        key: The engine; with a kind, it is asked for an adapter that vLLM can't serve.
        chosen: The kind that the settings choose.
        application: The present one, in Serve's overview.
        version: The service's.
        settings: See `Settings`.
        now_s: Unix time in seconds.
    """
    earlier = None if application is None else version_of(application)
    pause = None if earlier is None else earlier.pause
    own = None if application is None else kind_of(application)
    if own is not None and earlier is not None and earlier.is_listed and not has_failed(application):
        return own, None  # it has settings of its own
    if settings.engine != AUTO_ENGINE or chosen is EngineKind.BUILTIN:
        return chosen, None
    if key.kind is not None:
        return key.kind, pause or VllmPause.for_adapters(now_s)
    if own is None or version.replaces(earlier):
        return chosen, None
    if own is EngineKind.BUILTIN:
        is_paused = pause is not None and not pause.is_over(now_s)
        return (own if is_paused else chosen), pause
    if not has_failed(application):
        return chosen, pause
    return _after_failure(key, failure_of(application), pause, now_s)


def _after_failure(
    key: EngineKey, failure: str, earlier: VllmPause | None, now_s: float
) -> tuple[EngineKind, VllmPause]:
    pause = VllmPause.after_failure(earlier, now_s)
    if earlier is None and is_loss(failure):
        return EngineKind.VLLM, pause  # that says nothing about vLLM, unless it comes again
    logger.warning(
        "vLLM couldn't be started for %s; sienn_ray's own engine takes its place for %d s at least: %s",
        key,
        pause.wait_s,
        failure[-_MAX_REASON_CHARS:],
    )
    return EngineKind.BUILTIN, pause
