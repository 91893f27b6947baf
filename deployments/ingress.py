"""The ingress deployment: the REST API over HTTP."""

from __future__ import annotations

import logging
import threading

from fastapi import FastAPI
from ray import serve

from deployments.access import serves_host
from deployments.dataset_statistics import RayStatistics
from deployments.dataset_sweep import start_sweep
from deployments.engine_applications import EngineApplications
from deployments.engines import ServeEngines
from deployments.flow_control import ReplicaFlowControl
from deployments.health import RayCluster
from deployments.job_logs import RayJobLogs
from deployments.rendered_rows import RayRenderings
from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.jobs.client.tracker_client import tracker_client
from sienn_ray.jobs.deployment import Deployment
from sienn_ray.jobs.tracker_start import start_tracker
from sienn_ray.metrics import Recorder
from sienn_ray.ray_metrics import RayMirror
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage


@serve.ingress()
class Ingress:
    """Answers HTTP; holds no state, so any number of replicas gives the same answers.

    Args:
        settings: See `Settings`.
        built_at: When the service was deployed, in milliseconds of Unix time; the same for all of its replicas.
    """

    def __init__(self, settings: Settings, built_at: int = 0) -> None:
        logging.basicConfig(level=logging.INFO)
        if settings.auth == "auto" and (fault := settings.access_fault(serves_host())):
            raise RuntimeError(fault)
        # What answers requests needs no database.
        self._settings = settings.without_database()
        self._engines = EngineApplications(settings.without_secrets(), built_at)
        start_tracker(Deployment(settings, built_at / 1000))
        start_sweep(settings)
        threading.Thread(target=self._engines.roll_outdated, name="roll-engines", daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application that Ray Serve mounts, once in each replica."""
        app = create_app(
            Backends(
                settings=self._settings,
                tracker=tracker_client(),
                engines=ServeEngines(self._settings.without_secrets(), self._engines),
                storage=Storage(self._settings.storage_url),
                job_logs=RayJobLogs(),
                cluster=RayCluster(),
                statistics=RayStatistics(self._settings),
                renderings=RayRenderings(self._settings),
                recorder=Recorder(mirror=RayMirror()),
            ),
            numbered_by_server=True,
        )
        app.add_middleware(ReplicaFlowControl)
        return app
