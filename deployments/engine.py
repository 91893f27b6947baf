"""The engine deployment: a Serve replica with an engine for one base model and its adapters."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, assert_never

import ray
from ray import serve
from ray.serve import Application

from deployments.engine_choice import num_gpus_of
from deployments.engine_versions import EngineVersion, marker
from deployments.metrics_sender import MetricsSender, send_to_tracker
from deployments.pieces import Deliveries, Pace, Pieces, at_the_end
from sienn_ray.errors import EngineError
from sienn_ray.inference.applications import deployment_name
from sienn_ray.inference.engine import Engine, GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.inference.metered import MeteredEngine
from sienn_ray.metrics import Recorder
from sienn_ray.ray_metrics import RayMirror
from sienn_ray.settings import EngineKind, Settings

logger = logging.getLogger(__name__)

# Routers needn't know more adapters of a replica, whatever its engine's cache holds.
_MAX_REPORTED_ADAPTERS = 64
# How often Serve's controller looks at a replica, and so how soon it replaces a dead one. By default it looks every
# 10 s, and meanwhile nobody answers.
REPLICA_HEALTH_CHECK_PERIOD_S = 1
# A queue that is empty sooner than another replica would have loaded the base model needs none.
_UPSCALE_DELAY_S = 10.0


class EngineDeployment:
    """Serves an engine; the replica is ready once the base model is loaded.

    Args:
        base_model: Hub id.
        settings: See `Settings`.
        revision: Its commit; None is what is here, or the main branch.
        version: A handle of the deployment that tells the application's version; see `deployments.engine_versions`.
    """

    def __init__(
        self,
        base_model: str,
        settings: Settings,
        revision: str | None = None,
        version: object = None,  # noqa: ARG002
    ) -> None:
        recorder = Recorder(mirror=RayMirror())
        self._base_model = base_model
        self._revision = revision
        self._step_timeout_s = settings.engine_step_timeout_s
        self._num_open, self._last_end_at = 0, time.monotonic()
        self._deliveries: Deliveries | None = None  # to the event loop that requests run in, known with the first one
        engine = load_engine(base_model, settings, revision)
        self._pace = Pace(settings.stream_interval_s, engine.num_cpus)
        self._engine: Engine = MeteredEngine(engine, recorder, base_model)
        self._sender = MetricsSender(
            recorder, send_to_tracker, interval_s=settings.metrics_flush_s, before=self._engine.show
        )

    def __del__(self) -> None:
        # Serve calls this when a replica ends, also one whose constructor failed.
        if hasattr(self, "_sender"):
            self._sender.stop()
        if hasattr(self, "_engine"):
            self._engine.close()

    def check_health(self) -> None:
        """End a replica whose engine is stuck or has failed: Serve then starts another, and requests are retried there.

        A replica that reports itself unhealthy would be drained first, and wait for answers that never come.
        """
        if self._engine.failure is not None:
            logger.critical("the engine of %s has failed: %s; the replica ends", self._base_model, self._engine.failure)
            self._end()
        if self._engine.stuck_s > self._step_timeout_s:
            logger.critical(
                "a step of %s has taken %.0f s (SIENN_ENGINE_STEP_TIMEOUT_S); the replica ends",
                self._base_model,
                self._engine.stuck_s,
            )
            self._end()

    def _end(self) -> None:
        """End this process, and what the engine runs beside it, without waiting for anything."""
        try:
            self._engine.kill()
        finally:
            os._exit(1)

    async def ready(self) -> None:
        """Return once the replica can answer, that is, has loaded the base model."""

    async def idle_s(self) -> float:
        """Return the seconds since the last request ended; 0 while one is open."""
        return 0.0 if self._num_open else time.monotonic() - self._last_end_at

    async def prefetch(self, adapter_id: str, adapter_key: str) -> None:
        """Load an adapter before a request names it.

        Raises:
            SiennError: The adapter can't be loaded.
        """
        await self._hold(adapter_id)
        await asyncio.to_thread(self._engine.load_adapter, adapter_id, adapter_key)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """Answer one request; a caller that goes away cancels it at the next token.

        Raises:
            SiennError: The error that ended it.
        """
        async with aclosing(self._deltas(request, at_the_end)) as deltas:
            async for delta in deltas:
                if delta.error is not None:
                    raise delta.error
                if delta.result is not None:
                    return delta.result
        raise EngineError("the engine ended without an answer")

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta]:
        """Stream the answer to one request; an error comes as the last delta.

        Raises:
            CapacityError: The queue is full.
        """
        with self._pace.stream() as interval_s:
            async with aclosing(self._deltas(request, interval_s)) as deltas:
                async for delta in deltas:
                    yield delta

    async def _deltas(
        self, request: GenerationRequest, interval_s: Callable[[], float]
    ) -> AsyncGenerator[GenerationDelta]:
        self._check_commit(request)
        if request.adapter_id is not None:
            await self._hold(request.adapter_id)
        if self._deliveries is None:
            self._deliveries = Deliveries(asyncio.get_running_loop())
        pieces = Pieces(interval_s)
        generation = self._engine.submit(request, partial(self._deliveries.put, pieces))
        self._num_open += 1
        try:
            while True:
                delta = await pieces.next()
                yield delta
                if delta.is_last:
                    return
        finally:
            self._num_open -= 1
            self._last_end_at = time.monotonic()
            generation.cancel()

    def _check_commit(self, request: GenerationRequest) -> None:
        """Refuse an adapter of other weights: the application may have been deployed anew since it was looked up.

        Raises:
            EngineError: The request is for another commit.
        """
        wanted = request.base_model_revision
        if wanted is not None and self._revision is not None and wanted != self._revision:
            raise EngineError(
                f"the engine holds {self._base_model} at commit {self._revision}, and commit {wanted} is asked for; "
                "ask again in a moment"
            )

    @serve.multiplexed(max_num_models_per_replica=_MAX_REPORTED_ADAPTERS)  # type: ignore[untyped-decorator]
    async def _hold(self, adapter_id: str) -> str:
        """Register the adapter with Serve's routers as one of this replica; the engine's own cache loads it."""
        return adapter_id


def load_engine(base_model: str, settings: Settings, revision: str | None = None) -> Engine:
    """Load a base model into an engine of the kind that the settings name.

    Args:
        base_model: Hub id.
        settings: See `Settings`.
        revision: Its commit; None is what is here, or the main branch.

    Raises:
        SiennError: The base model can't be loaded.
    """
    # Each is imported in the replica only: the ingress builds this application and must stay without torch.
    match settings.engine:
        # `auto` is settled before an engine is deployed; by itself, this process has nothing to choose from.
        case EngineKind.BUILTIN | "auto":
            from sienn_ray.inference.batching.engine import BatchingEngine

            return BatchingEngine(base_model, settings, revision, num_gpus=assigned_gpus())
        case EngineKind.VLLM:
            from sienn_ray.inference.vllm_engine.engine import VllmEngine

            return VllmEngine(base_model, settings, revision)
        case _:
            assert_never(settings.engine)


def assigned_gpus() -> float | None:
    """Return the GPUs that Ray has assigned to this replica, also a part of one; None in a process without Ray."""
    if not ray.is_initialized():
        return None
    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0))


def build_engine(
    base_model: str,
    settings: Settings,
    revision: str | None = None,
    *,
    version: EngineVersion | None = None,
    memory_bytes: int = 0,
) -> Application:
    """Build the application that serves one base model; without requests it scales to zero.

    Args:
        base_model: Hub id.
        settings: See `Settings`, with the kind of the engine.
        revision: Its commit; None is what is here, or the main branch.
        version: What the application tells of itself in Serve's overview.
        memory_bytes: Memory that a replica reserves; 0 reserves none.
    """
    deployment = serve.deployment(
        EngineDeployment,
        name=deployment_name(revision, chosen_kind(settings)),
        max_ongoing_requests=settings.engine_max_queue + settings.engine_max_batch,
        max_queued_requests=settings.engine_max_queue,
        health_check_period_s=REPLICA_HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=30,
        # Graceful shutdown: a replica that is replaced or no longer needed first ends the answers that it has begun.
        graceful_shutdown_timeout_s=settings.generation_timeout_s,
        autoscaling_config={
            "min_replicas": settings.engine_min_replicas,
            "initial_replicas": max(1, settings.engine_min_replicas),
            "max_replicas": settings.engine_max_replicas,
            # More than a batch is a queue, which another replica would shorten.
            "target_ongoing_requests": settings.engine_max_batch,
            "upscale_delay_s": _UPSCALE_DELAY_S,
            "downscale_delay_s": settings.engine_idle_timeout_s,
        },
        ray_actor_options={
            "num_cpus": settings.engine_num_cpus,
            "num_gpus": num_gpus_of(base_model, settings),
            **({"memory": memory_bytes} if memory_bytes else {}),
            **({"runtime_env": environment} if (environment := runtime_env_of(settings)) else {}),
        },
    )
    told = {} if version is None else {"version": marker(version)}
    return deployment.bind(base_model, settings, revision, **told)


def chosen_kind(settings: Settings) -> EngineKind:
    """Return the kind of an engine's settings; see `deployments.engine_choice.with_kind`."""
    return settings.engine if isinstance(settings.engine, EngineKind) else EngineKind.BUILTIN


def runtime_env_of(settings: Settings) -> dict[str, Any]:
    """Return Ray's runtime environment of a replica: the interpreter that the settings name for vLLM, if they do."""
    if settings.engine is not EngineKind.VLLM or settings.engine_python is None:
        return {}
    # Ray hands the command to a shell. Compilers that vLLM calls are found in the folder of its interpreter.
    return {
        "py_executable": shlex.quote(str(settings.engine_python)),
        "env_vars": {"PATH": f"{settings.engine_python.parent}:${{PATH}}"},
    }
