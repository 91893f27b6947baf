"""`Engine` on vLLM."""

from __future__ import annotations

from sienn_ray.errors import EngineError
from sienn_ray.inference.engine import Engine
from sienn_ray.inference.vllm_engine.versions import check_version, installed_version
from sienn_ray.settings import Settings


def load(base_model: str, settings: Settings, revision: str | None = None) -> Engine:  # noqa: ARG001 # as it will be
    """Load a base model into vLLM.

    Raises:
        EngineError: vLLM can't be used here.
    """
    check_version(installed_version())
    raise EngineError(f"{base_model} can't be loaded into vLLM yet; set SIENN_ENGINE=builtin")
