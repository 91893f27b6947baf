"""A cluster of two nodes loses one while a run trains on both: the run goes on with the other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from deployments.local_cluster import TOO_SLOW
from tests.integration.outside import CPUS_OF_A_NODE, Restarted
from tests.integration.service import JOB_TIMEOUT_S, Service, is_past_first_checkpoint, wait_for

# A slow machine may need more than the 30 s that Ray gives a node.
NUM_STARTS = 3
# Ray Train's own count, which is up to 20 s old; without one, it counts when it is first asked.
COUNT_NODES = """
try:
    counter = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
except ValueError:
    print(2)
else:
    nodes = counter.__ray_call__.remote(lambda self: sum(map(len, self._cluster_node_resources.values())))
    print(ray.get(nodes))
"""


@contextlib.contextmanager
def second_node(service: Service, log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another node of the service's cluster, in a session of its own that `kill_node` ends as a power cut would."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--address={service.ray_address}"]
    command += [f"--num-cpus={CPUS_OF_A_NODE}", "--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--object-store-memory={100 * 1024**2}"]
    for _ in range(NUM_STARTS):
        with log_path.open("wb") as log:
            node = subprocess.Popen(
                command, env=service.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            wait_for(lambda: num_nodes(service) == 2 or node.poll() is not None, "the second node", 120.0)  # noqa: B023
            if node.poll() is None:
                yield node
                return
        finally:
            kill_node(node)
        assert TOO_SLOW in log_path.read_text(), log_path.read_text()
    raise AssertionError(f"the second node wasn't up within Ray's 30 s, {NUM_STARTS} times in a row")


def kill_node(node: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def num_nodes(service: Service) -> int:
    return int(service.get("/api/health/services")["services"]["celery"]["active_workers"])


def workers_of(pid: int) -> list[psutil.Process]:
    """Training workers among the processes that a process has started."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[0].startswith("ray::RayTrainWorker"):
                found.append(process)
    return found


def test_a_run_goes_on_with_the_workers_that_are_left(restarted: Restarted, tmp_path: Path) -> None:
    service = restarted.service
    wait_for(lambda: has_completed(service, restarted.waiting), "the end of the jobs before it", JOB_TIMEOUT_S)
    with second_node(service, tmp_path / "node.log") as node:
        # What ran before gives its CPUs back a moment after it has told its end, and a run that may go on with one
        # worker begins with one where there is no room for two.
        wait_for(lambda: num_free_cpus(service) >= 2 * CPUS_OF_A_NODE, "free CPUs on both nodes", 60.0)
        wait_for(lambda: service.on_ray(COUNT_NODES).strip() == "2", "Ray Train's count of the nodes", 60.0)
        options: dict[str, Any] = {"num_workers": 2, "min_workers": 1, "num_epochs": 4, "batch_size": 2}
        job_id = service.start(restarted.dataset_id, **options)
        service.wait_until(job_id, is_past_first_checkpoint, "the second epoch")
        assert [len(workers_of(process.pid)) for process in (service.process, node)] == [1, 1]
        kill_node(node)
        done = service.wait_for_end(job_id)
    assert done["meta"]["num_workers"] == 1
    # The epochs before the loss are there once: they weren't trained again.
    assert [record["epoch"] for record in done["meta"]["loss_history"]] == [0, 1, 2, 3, 4]
    assert "Resuming after epoch" in service.log_of(job_id)


def num_free_cpus(service: Service) -> float:
    return float(service.on_ray("print(ray.available_resources().get('CPU', 0))"))


def has_completed(service: Service, job_id: str) -> bool:
    return bool(service.status(job_id)["status"] == "completed")
