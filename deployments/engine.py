"""The engine deployment: a Serve replica with an engine for one base model and its adapters."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import assert_never

import ray
from ray import serve
from ray.serve import Application

from deployments.metrics_sender import MetricsSender, send_to_tracker
from deployments.pieces import Pace, Pieces, at_the_end
from sienn_ray import catalog
from sienn_ray.errors import EngineError
from sienn_ray.inference.engine import Engine, GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.inference.metered import MeteredEngine
from sienn_ray.metrics import Recorder
from sienn_ray.ray_metrics import RayMirror
from sienn_ray.settings import EngineKind, Settings

logger = logging.getLogger(__name__)

# Routers needn't know more adapters of a replica, whatever its engine's cache holds.
_MAX_REPORTED_ADAPTERS = 64
# A queue that is empty sooner than another replica would have loaded the base model needs none.
_UPSCALE_DELAY_S = 10.0


class EngineDeployment:
    """Serves an engine; the replica is ready once the base model is loaded.

    Args:
        base_model: Hub id.
        settings: See `Settings`.
    """

    def __init__(self, base_model: str, settings: Settings) -> None:
        recorder = Recorder(mirror=RayMirror())
        self._base_model = base_model
        self._step_timeout_s = settings.engine_step_timeout_s
        engine = load_engine(base_model, settings)
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
        """End a replica whose engine is stuck: Serve then starts another, and requests are retried there.

        A replica that reports itself unhealthy would be drained first, and wait for answers that never come.
        """
        if self._engine.stuck_s > self._step_timeout_s:
            logger.critical(
                "a step of %s has taken %.0f s (SIENN_ENGINE_STEP_TIMEOUT_S); the replica ends",
                self._base_model,
                self._engine.stuck_s,
            )
            os._exit(1)

    async def ready(self) -> None:
        """Return once the replica can answer, that is, has loaded the base model."""

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
        if request.adapter_id is not None:
            await self._hold(request.adapter_id)
        loop = asyncio.get_running_loop()
        pieces = Pieces(interval_s)

        def listen(delta: GenerationDelta) -> None:
            loop.call_soon_threadsafe(pieces.put, delta)

        generation = self._engine.submit(request, listen)
        try:
            while True:
                delta = await pieces.next()
                yield delta
                if delta.is_last:
                    return
        finally:
            generation.cancel()

    @serve.multiplexed(max_num_models_per_replica=_MAX_REPORTED_ADAPTERS)  # type: ignore[untyped-decorator]
    async def _hold(self, adapter_id: str) -> str:
        """Register the adapter with Serve's routers as one of this replica; the engine's own cache loads it."""
        return adapter_id


def load_engine(base_model: str, settings: Settings) -> Engine:
    """Load a base model into an engine of the kind that the settings name.

    Args:
        base_model: Hub id.
        settings: See `Settings`.

    Raises:
        SiennError: The base model can't be loaded.
    """
    # Each is imported in the replica only: the ingress builds this application and must stay without torch.
    match settings.engine:
        case EngineKind.BUILTIN:
            from sienn_ray.inference.batching.engine import BatchingEngine

            return BatchingEngine(base_model, settings)
        case _:
            assert_never(settings.engine)


def build_engine(base_model: str, settings: Settings) -> Application:
    """Build the application that serves one base model; without requests it scales to zero."""
    deployment = serve.deployment(
        EngineDeployment,
        name="Engine",
        max_ongoing_requests=settings.engine_max_queue + settings.engine_max_batch,
        max_queued_requests=settings.engine_max_queue,
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
        ray_actor_options={"num_cpus": settings.engine_num_cpus, "num_gpus": _num_gpus(base_model, settings)},
    )
    return deployment.bind(base_model, settings)


def _num_gpus(base_model: str, settings: Settings) -> float:
    """Return the settings' GPUs of a replica, or else the catalog's share on a cluster that has GPUs."""
    if settings.engine_num_gpus is not None:
        return settings.engine_num_gpus
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    return catalog.num_gpus(base_model) if has_gpus else 0.0
