"""The kind of engine that an adapter needs: vLLM can't serve all that is trained here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sienn_ray.errors import InvalidInputError
from sienn_ray.inference.vllm_engine.refusals import unsupported, way_out
from sienn_ray.settings import EngineKind, Settings


def kind_for_adapter(adapter_config: Mapping[str, Any], settings: Settings) -> EngineKind | None:
    """Return the kind of engine that serves an adapter, or None where any that the settings choose does.

    Args:
        adapter_config: Fields of its `adapter_config.json`, or of what it is going to be.
        settings: See `Settings`.

    Raises:
        InvalidInputError: The settings name vLLM alone, which can't serve it.
    """
    if settings.engine is EngineKind.BUILTIN:
        return None
    reason = unsupported(adapter_config, settings.engine_max_lora_rank)
    if reason is None:
        return None
    if settings.engine is EngineKind.VLLM:
        raise InvalidInputError(
            f"the adapter {reason}; {way_out(reason)}, or serve it beside vLLM with SIENN_ENGINE=auto"
        )
    return EngineKind.BUILTIN
