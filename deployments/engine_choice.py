"""The kind of engine that serves a base model, and the GPUs of its replicas."""

from __future__ import annotations

import logging

import ray

from deployments.engine_environment import NodeEnvironments
from sienn_ray import catalog
from sienn_ray.errors import EngineError
from sienn_ray.inference.applications import EngineKey
from sienn_ray.settings import AUTO_ENGINE, EngineKind, Settings

logger = logging.getLogger(__name__)

_ENVIRONMENTS = NodeEnvironments()


def with_kind(key: EngineKey, settings: Settings) -> Settings:
    """Return the settings of one engine, with its kind and its GPUs.

    Args:
        key: The engine; one without a kind is of the chosen one.
        settings: See `Settings`.

    Raises:
        EngineError: See `engine_kind`.
    """
    kind = key.kind or engine_kind(key.base_model, settings)
    return settings.model_copy(update={"engine": kind, "engine_num_gpus": num_gpus_of(key.base_model, settings)})


def engine_kind(base_model: str, settings: Settings, environments: NodeEnvironments = _ENVIRONMENTS) -> EngineKind:
    """Return the kind of engine that the settings choose for a base model.

    `auto` chooses vLLM where replicas have a GPU and every node that could hold one says that it has vLLM, and else the
    engine that needs nothing else. May wait for the nodes up to a minute.

    Args:
        base_model: Hub id.
        settings: See `Settings`.
        environments: Those of the nodes.

    Raises:
        EngineError: The settings name vLLM, and a node lacks it.
    """
    if settings.engine is EngineKind.BUILTIN:
        return EngineKind.BUILTIN
    has_gpu = num_gpus_of(base_model, settings) > 0
    if settings.engine == AUTO_ENGINE and not has_gpu:
        return EngineKind.BUILTIN
    # Where vLLM is demanded, there is nothing else to try on a node that is too busy to say.
    is_demanded = settings.engine is EngineKind.VLLM
    fault = environments.fault(settings.engine_python, needs_gpu=has_gpu, trusts_silence=is_demanded)
    if fault is None:
        return EngineKind.VLLM
    if settings.engine == AUTO_ENGINE:
        logger.info("the engine of %s is sienn_ray's own, since vLLM can't serve here: %s", base_model, fault)
        return EngineKind.BUILTIN
    raise EngineError(f"SIENN_ENGINE is vllm, which can't serve here: {fault}")


def num_gpus_of(base_model: str, settings: Settings) -> float:
    """Return the GPUs of a replica: the settings', or else the catalog's share on a cluster that has GPUs."""
    if settings.engine_tensor_parallel > 1:
        return float(settings.engine_tensor_parallel)
    if settings.engine_num_gpus is not None:
        return settings.engine_num_gpus
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    return catalog.num_gpus(base_model) if has_gpus else 0.0
