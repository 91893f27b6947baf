"""The ingress deployment: the REST API over HTTP."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from ray import serve

from deployments.engines import ServeEngines
from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.jobs.client import TrackerClient, start_tracker
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

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray Serve mounts, once in each replica."""
        return create_app(
            Backends(
                settings=self._settings,
                tracker=TrackerClient(self._settings),
                engines=ServeEngines(self._settings),
                storage=Storage(self._settings.storage_url),
            )
        )
