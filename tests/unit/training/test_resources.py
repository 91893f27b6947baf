from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sienn_ray.settings import Settings
from sienn_ray.training import resources
from sienn_ray.training.resources import (
    WorkerResources,
    choose_resources,
    num_placeable,
    wait_until_losses_are_known,
)


def choose(num_workers: int | None, nodes: list[dict[str, float]], max_workers: int = 100, **settings: Any) -> Any:
    chosen = choose_resources(Settings(**settings), num_workers, max_workers, nodes)
    return chosen.num_workers, chosen.cpus_per_worker, chosen.use_gpu


@pytest.mark.parametrize(
    ("asked", "setting", "max_workers", "expected"),
    [(None, 1, 100, 1), (None, 3, 100, 3), (2, 1, 100, 2), (1, 3, 100, 1), (8, 1, 4, 4), (None, 8, 1, 1)],
)
def test_the_job_is_asked_first_then_the_setting(
    asked: int | None, setting: int, max_workers: int, expected: int
) -> None:
    assert choose(asked, [{"CPU": 8}], max_workers, training_num_workers=setting)[0] == expected


@pytest.mark.parametrize(
    ("num_workers", "nodes", "cpus_per_worker"),
    [
        (1, [{"CPU": 2}], 2),
        (2, [{"CPU": 2}], 1),
        (2, [{"CPU": 8}], 4),
        (1, [{"CPU": 4}, {"CPU": 8}], 8),
        (4, [{"CPU": 4}, {"CPU": 8}], 3),
        (64, [{"CPU": 2}], 1),
        (1, [], 1),
    ],
)
def test_cpus_are_shared(num_workers: int, nodes: list[dict[str, float]], cpus_per_worker: int) -> None:
    assert choose(num_workers, nodes) == (num_workers, cpus_per_worker, False)


@pytest.mark.parametrize(
    ("num_workers", "setting", "num_gpus", "use_gpu"),
    [(2, "auto", 2, True), (2, "auto", 1, False), (2, "always", 0, True), (1, "never", 8, False)],
)
def test_gpus_are_used_where_every_worker_gets_one(
    num_workers: int, setting: str, num_gpus: int, use_gpu: bool
) -> None:
    nodes = [{"CPU": 4.0, "GPU": float(num_gpus)}]
    assert choose(num_workers, nodes, training_gpu=setting)[2] is use_gpu


@pytest.mark.parametrize(
    ("nodes", "cpus"),
    [
        ([{"CPU": 4, "GPU": 1}], 2),
        ([{"CPU": 192, "GPU": 8}, {"CPU": 2}], 2),
        ([{"CPU": 3, "GPU": 1}], 1),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 8}], 1),
        ([{"CPU": 8}], 1),  # nodes with GPUs are yet to come
    ],
)
def test_a_worker_with_a_gpu_has_a_second_cpu_where_there_are_many(nodes: list[dict[str, float]], cpus: int) -> None:
    assert choose(1, nodes, training_gpu="always") == (1, cpus, True)


def test_cpus_of_a_worker_can_be_set() -> None:
    assert choose(2, [{"CPU": 8}], training_cpus_per_worker=3) == (2, 3, False)


@pytest.mark.parametrize(
    ("nodes", "expected"), [([], 0), ([{"CPU": 3}], 1), ([{"CPU": 4}, {"CPU": 5}], 4), ([{"CPU": 1}] * 8, 0)]
)
def test_a_worker_has_to_fit_on_one_node(nodes: list[dict[str, float]], expected: int) -> None:
    assert num_placeable(WorkerResources(4, 2, use_gpu=False), nodes) == expected


def test_a_node_without_a_gpu_holds_no_worker_that_needs_one() -> None:
    assert num_placeable(WorkerResources(1, 1, use_gpu=True), [{"CPU": 8}, {"CPU": 8, "GPU": 1}]) == 1


class TestMinWorkers:
    @pytest.mark.parametrize(
        ("num_workers", "min_workers", "scaling", "needed"),
        [(4, None, 4, 4), (4, 4, 4, 4), (4, 5, 4, 4), (4, 1, (1, 4), 1), (4, 3, (3, 4), 3), (1, 1, 1, 1)],
    )
    def test_fewer_suffice_where_they_are_asked_for(
        self, num_workers: int, min_workers: int | None, scaling: int | tuple[int, int], needed: int
    ) -> None:
        resources = WorkerResources(num_workers, 1, use_gpu=False, min_workers=min_workers)
        assert resources.scaling == scaling
        assert resources.needed_workers == needed

    @pytest.mark.parametrize(
        ("nodes", "settings"),
        [
            ([{"CPU": 8.0}], {}),
            ([{"CPU": 8.0, "GPU": 8.0}], {}),
            ([{"CPU": 8.0}], {"training_cpus_per_worker": 3}),
        ],
        ids=["cpu", "gpu", "cpus set"],
    )
    def test_they_are_passed_on_however_the_workers_are_chosen(
        self, nodes: list[dict[str, float]], settings: dict[str, Any]
    ) -> None:
        assert choose_resources(Settings(**settings), 4, 100, nodes, 2).scaling == (2, 4)

    def test_no_more_are_needed_than_have_something_to_do(self) -> None:
        chosen = choose_resources(Settings(), 8, 2, [{"CPU": 8}], 4)
        assert (chosen.scaling, chosen.needed_workers) == (2, 2)


FIXED = WorkerResources(2, 1, use_gpu=False)


class Nodes:
    """Ray's table of nodes, of which it comes to know at the third look that the second one is gone."""

    def __init__(self, here: socket.socket, gone: socket.socket) -> None:
        self._ports = here.getsockname()[1], gone.getsockname()[1]
        gone.close()
        self.num_looks = 0

    def nodes(self) -> list[dict[str, Any]]:
        self.num_looks += 1
        alive = True, self.num_looks < 3
        return [
            {"Alive": is_alive, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port, "Resources": {"CPU": 1.0}}
            for is_alive, port in zip(alive, self._ports, strict=True)
        ]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_server(("127.0.0.1", 0)) as gone:
        table = Nodes(here, gone)
        monkeypatch.setattr(resources, "ray", table)
        monkeypatch.setattr(resources, "_POLL_S", 0.001)
        yield table


def test_a_node_that_takes_no_connections_is_waited_for_until_ray_knows(table: Nodes) -> None:
    wait_until_losses_are_known(FIXED)
    assert table.num_looks == 3


@pytest.mark.parametrize(
    ("shape", "is_waited"),
    [
        (WorkerResources(2, 1, use_gpu=False, min_workers=1), True),
        (WorkerResources(1, 1, use_gpu=False, min_workers=1), False),  # fits where it is
        (FIXED, False),  # is placed as a whole or not at all
    ],
)
def test_elastic_scaling_is_given_time_to_count_anew(table: Nodes, shape: WorkerResources, is_waited: bool) -> None:
    table.num_looks = 3
    pauses: list[float] = []
    wait_until_losses_are_known(shape, sleep=pauses.append)
    assert (sum(pauses) > 20.0) is is_waited


def test_a_node_that_ray_never_counts_as_lost_is_not_waited_for_for_ever(table: Nodes) -> None:
    table.num_looks = -(10**9)
    started = time.monotonic()
    wait_until_losses_are_known(FIXED, timeout_s=0.05)
    assert time.monotonic() - started >= 0.05
    assert table.num_looks < 0
