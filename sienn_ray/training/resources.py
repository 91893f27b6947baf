"""What training workers ask of the cluster, and waiting until it has that."""

from __future__ import annotations

import time
from dataclasses import dataclass

import ray

from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.settings import Settings

_POLL_S = 1.0


@dataclass(frozen=True)
class WorkerResources:
    """Number of workers, and what each one reserves."""

    num_workers: int
    cpus_per_worker: int
    use_gpu: bool

    @property
    def per_worker(self) -> dict[str, float]:
        """In Ray's words."""
        gpu = {"GPU": 1.0} if self.use_gpu else {}
        return {"CPU": float(self.cpus_per_worker), **gpu}

    def __str__(self) -> str:
        gpu = " and 1 GPU" if self.use_gpu else ""
        return f"{self.num_workers} training worker(s) with {self.cpus_per_worker} CPU(s){gpu} each"


def choose_resources(settings: Settings) -> WorkerResources:
    """Fit the workers to the cluster as it is: a GPU each where there are any, else the CPUs shared between them."""
    num_workers = settings.training_num_workers
    use_gpu = settings.training_gpu == "always" or (
        settings.training_gpu == "auto" and ray.cluster_resources().get("GPU", 0) >= num_workers
    )
    if settings.training_cpus_per_worker:
        return WorkerResources(num_workers, settings.training_cpus_per_worker, use_gpu)
    if use_gpu:
        return WorkerResources(num_workers, 1, use_gpu)
    largest_node = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=1)
    share = ray.cluster_resources().get("CPU", 1) / num_workers
    return WorkerResources(num_workers, max(1, int(min(largest_node, share))), use_gpu)


def wait_until_placeable(resources: WorkerResources, timeout_s: float) -> None:
    """Ask the autoscaler for what is missing and wait for it. Ray Train by itself would wait for ever.

    Raises:
        TrainingError: The cluster doesn't have it within `timeout_s` seconds.
    """
    needed = {name: count * resources.num_workers for name, count in resources.per_worker.items()}
    deadline = time.monotonic() + timeout_s
    if not _missing(needed):
        return
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[resources.per_worker] * resources.num_workers)
    try:
        while missing := _missing(needed):
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"the cluster lacks {missing} for {resources} and got no more within {timeout_s:.0f} s "
                    "(SIENN_TRAINING_START_TIMEOUT_S); add nodes, or lower SIENN_TRAINING_NUM_WORKERS, "
                    "SIENN_TRAINING_CPUS_PER_WORKER or set SIENN_TRAINING_GPU=never",
                    FailureReason.NO_RESOURCES,
                )
            time.sleep(_POLL_S)
    finally:
        request_resources(bundles=[])


def _missing(needed: dict[str, float]) -> dict[str, float]:
    there = ray.cluster_resources()
    return {name: count - there.get(name, 0) for name, count in needed.items() if there.get(name, 0) < count}
