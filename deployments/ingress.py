"""The ingress deployment: the REST API over HTTP."""

from __future__ import annotations

import logging
from functools import partial

from fastapi import FastAPI
from ray import serve

from deployments.dataset_statistics import RayStatistics
from deployments.dataset_sweep import start_sweep
from deployments.engines import ServeEngines
from deployments.flow_control import ReplicaFlowControl
from deployments.health import RayCluster
from deployments.job_logs import RayJobLogs
from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.jobs.client.tracker_client import tracker_client
from sienn_ray.jobs.tracker_start import get_or_create_tracker, start_tracker
from sienn_ray.metrics import Recorder
from sienn_ray.ray_metrics import RayMirror
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage


@serve.ingress()
class Ingress:
    """Answers HTTP; holds no state, so any number of replicas gives the same answers.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        logging.basicConfig(level=logging.INFO)
        self._settings = settings
        start_tracker(settings)
        start_sweep(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application that Ray Serve mounts, once in each replica."""
        app = create_app(
            Backends(
                settings=self._settings,
                # A tracker that is gone for good is started again.
                tracker=tracker_client(partial(get_or_create_tracker, self._settings)),
                engines=ServeEngines(self._settings),
                storage=Storage(self._settings.storage_url),
                job_logs=RayJobLogs(),
                cluster=RayCluster(),
                statistics=RayStatistics(self._settings),
                recorder=Recorder(mirror=RayMirror()),
            ),
            numbered_by_server=True,
        )
        app.add_middleware(ReplicaFlowControl)
        return app
