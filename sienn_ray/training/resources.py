"""Resources that training workers ask of the cluster, and waiting until it has them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

import ray
from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.settings import Settings

# Of a node, for a second CPU of its workers.
_MIN_CPUS_PER_GPU = 4
_POLL_S = 1.0
_CONNECT_TIMEOUT_S = 2.0
# Ray takes half of this with the defaults of its health checks.
_NODE_LOSS_TIMEOUT_S = 60.0
# Ray Train's elastic scaling counts the cluster's nodes every 20 s.
_STALE_COUNT_S = 21.0

# Amounts by Ray's names: CPU, GPU, memory and the like.
NodeResources = dict[str, float]


@dataclass(frozen=True)
class WorkerResources:
    """Number of workers, and what each one reserves; `min_workers` suffice to start and to go on."""

    num_workers: int
    cpus_per_worker: int
    use_gpu: bool
    min_workers: int | None = None

    @property
    def is_elastic(self) -> bool:
        """Return whether Ray Train may start with fewer workers."""
        return self.needed_workers < self.num_workers

    @property
    def scaling(self) -> int | tuple[int, int]:
        """In Ray Train's words: a range lets it start with fewer workers and take more when there are more."""
        return (self.needed_workers, self.num_workers) if self.is_elastic else self.num_workers

    @property
    def needed_workers(self) -> int:
        """Workers that the cluster must have room for."""
        return min(self.min_workers or self.num_workers, self.num_workers)

    @property
    def num_cpus(self) -> int:
        """CPUs of all workers."""
        return self.num_workers * self.cpus_per_worker

    @property
    def num_gpus(self) -> int:
        """GPUs of all workers."""
        return self.num_workers if self.use_gpu else 0

    @property
    def per_worker(self) -> dict[str, float]:
        """In Ray's words."""
        gpu = {"GPU": 1.0} if self.use_gpu else {}
        return {"CPU": float(self.cpus_per_worker), **gpu}

    def __str__(self) -> str:
        gpu = " and 1 GPU" if self.use_gpu else ""
        return f"{self.num_workers} training worker(s) with {self.cpus_per_worker} CPU(s){gpu} each"


def choose_resources(
    settings: Settings,
    num_workers: int | None,
    max_workers: int,
    nodes: list[NodeResources],
    min_workers: int | None = None,
) -> WorkerResources:
    """Fit the workers to the cluster as it is: a GPU each where there are any, else the CPUs shared between them.

    Args:
        settings: What a worker gets, and how many there are unless the job says.
        num_workers: What the job asks for.
        max_workers: More than this would have nothing to do.
        nodes: What the cluster has.
        min_workers: What the job can do with.
    """
    num_workers = min(num_workers or settings.training_num_workers, max_workers)
    num_gpus = sum(node.get("GPU", 0) for node in nodes)
    use_gpu = _uses_gpu(settings, num_gpus, num_workers)
    if settings.training_cpus_per_worker:
        return WorkerResources(num_workers, settings.training_cpus_per_worker, use_gpu, min_workers)
    if use_gpu:
        return WorkerResources(num_workers, _cpus_beside_a_gpu(nodes), use_gpu, min_workers)
    cpus = [node.get("CPU", 0) for node in nodes]
    share = min(max(cpus, default=1), sum(cpus) / num_workers)
    return WorkerResources(num_workers, max(1, int(share)), use_gpu, min_workers)


def _cpus_beside_a_gpu(nodes: list[NodeResources]) -> int:
    """CPUs of a worker with a GPU: one launches kernels all the time, a second one tokenizes and collates.

    A node with fewer than four for each GPU has others that need them.
    """
    shares = [node.get("CPU", 0) / node["GPU"] for node in nodes if node.get("GPU", 0)]
    return 2 if min(shares, default=0) >= _MIN_CPUS_PER_GPU else 1


def _uses_gpu(settings: Settings, num_gpus: float, num_workers: int) -> bool:
    match settings.training_gpu:
        case "always":
            return True
        case "auto":
            return num_gpus >= num_workers
        case "never":
            return False
        case _:
            assert_never(settings.training_gpu)


def wait_until_placeable(resources: WorkerResources, timeout_s: float) -> None:
    """Ask the autoscaler for what is missing and wait for it. Ray Train by itself would wait for ever.

    Raises:
        TrainingError: The cluster doesn't have it within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    if num_placeable(resources, alive_nodes()) >= resources.needed_workers:
        return
    from ray.autoscaler.sdk import request_resources

    try:
        while (placeable := num_placeable(resources, alive_nodes())) < resources.needed_workers:
            # Each time, since there is one request for the whole cluster, and another run may have withdrawn it.
            request_resources(bundles=[resources.per_worker] * resources.num_workers)
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"the cluster has room for {placeable} of {resources} and got no more within {timeout_s:.0f} s "
                    "(SIENN_TRAINING_START_TIMEOUT_S); add nodes, lower the job's num_workers or "
                    "SIENN_TRAINING_NUM_WORKERS, lower SIENN_TRAINING_CPUS_PER_WORKER, or set SIENN_TRAINING_GPU=never",
                    FailureReason.NO_RESOURCES,
                )
            time.sleep(_POLL_S)
    finally:
        withdraw_request()


def free_placement_groups() -> None:
    """Give back what a run of this Ray job left reserved.

    Ray removes a placement group with its creator only when that creator's job is over as well, and Ray Train's
    controller may be gone before it gets to it: the next workers of the same job would wait for ever.
    """
    own = ray.get_runtime_context().get_job_id()
    for group_id, facts in placement_group_table().items():
        # An id ends with that of the job that it was made in.
        if group_id.endswith(own) and facts["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group_id))))


def wait_until_losses_are_known(
    resources: WorkerResources,
    timeout_s: float = _NODE_LOSS_TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until Ray counts no node that is gone: it learns of one by missed health checks, which takes a while.

    Until then workers would be placed there as well, and waited for in vain. Whoever isn't gone takes connections.

    Args:
        resources: What is to be placed; where fewer workers may do, it is Ray Train that counts, and later than Ray.
        timeout_s: Seconds after which a node that takes no connections isn't waited for any more.
        sleep: Waits for so many seconds.
    """
    deadline = time.monotonic() + timeout_s
    while any(not _takes_connections(node) for node in ray.nodes() if node["Alive"]) and time.monotonic() < deadline:
        sleep(_POLL_S)
    if resources.is_elastic and num_placeable(resources, alive_nodes()) < resources.num_workers:
        sleep(_STALE_COUNT_S)


def _takes_connections(node: dict[str, Any]) -> bool:
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), _CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


def withdraw_request() -> None:
    """Have the autoscaler no longer keep room for a run that waits; the request would outlive this program."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[])


def alive_nodes() -> list[NodeResources]:
    """All resources of every node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def num_placeable(resources: WorkerResources, nodes: list[NodeResources]) -> int:
    """Workers that the nodes could hold if nothing else ran; a worker has to fit on one node."""
    return sum(min(int(node.get(name, 0) // count) for name, count in resources.per_worker.items()) for node in nodes)
