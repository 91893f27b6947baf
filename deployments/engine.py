"""The engine deployment: one base model in memory, its adapters beside it."""

from __future__ import annotations

import asyncio
import threading

from ray import serve
from ray.serve import Application

from deployments.metrics_sender import MetricsSender, send_to_tracker
from sienn_ray.inference.engine import GenerationRequest, GenerationResult
from sienn_ray.inference.metered import MeteredEngine
from sienn_ray.metrics import Recorder
from sienn_ray.ray_metrics import RayMirror
from sienn_ray.settings import Settings


class EngineDeployment:
    """Serves `TransformersEngine`; the replica is ready once the base model is loaded.

    Args:
        base_model: Hub id.
        settings: See `Settings`.
    """

    def __init__(self, base_model: str, settings: Settings) -> None:
        # Imported in the replica: the ingress builds this application and must stay without torch.
        from sienn_ray.inference.transformers_engine import TransformersEngine

        recorder = Recorder(mirror=RayMirror())
        self._engine = MeteredEngine(TransformersEngine(base_model, settings), recorder, base_model)
        self._sender = MetricsSender(
            recorder, send_to_tracker, interval_s=settings.metrics_flush_s, before=self._engine.show
        )

    def __del__(self) -> None:
        # Serve calls this when a replica ends, also one whose constructor failed.
        if hasattr(self, "_sender"):
            self._sender.stop()

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """Answer one request; a caller that goes away ends it at the next token."""
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(self._engine.generate, request, cancelled)
        finally:
            cancelled.set()


def build_engine(base_model: str, settings: Settings) -> Application:
    """The application that serves one base model."""
    deployment = serve.deployment(
        EngineDeployment,
        name="Engine",
        max_ongoing_requests=settings.engine_max_queue,
        max_queued_requests=settings.engine_max_queue,
        ray_actor_options={"num_cpus": settings.engine_num_cpus, "num_gpus": settings.engine_num_gpus},
    )
    return deployment.bind(base_model, settings)
