"""The tiny model's engine of a service, as its processes and as the service tells of it."""

from __future__ import annotations

from typing import Any

import psutil

from tests.integration.service import Service
from tests.support.tiny_model import TINY_ID


def replicas(service: Service) -> list[psutil.Process]:
    return service.processes(f"ray::ServeReplica:engine-{TINY_ID.replace('/', '--')}")


def engine_state(service: Service) -> Any:
    engines = service.get("/api/health/services")["services"]["engines"]["engines"]
    (engine,) = [each for each in engines if each["base_model"] == TINY_ID]
    return engine["state"], engine["num_replicas"]
