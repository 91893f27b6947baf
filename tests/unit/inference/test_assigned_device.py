from __future__ import annotations

import pytest
import torch

from sienn_ray.inference.assigned_device import AssignedDevice, assigned_device

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("num_gpus", "expected"),
    [
        (None, AssignedDevice(GPU)),
        (0.0, AssignedDevice(CPU)),
        (0.25, AssignedDevice(GPU, 0.25)),
        (1.0, AssignedDevice(GPU)),
        (2.0, AssignedDevice(GPU)),
    ],
)
def test_a_gpu_that_is_seen_is_taken_only_where_it_was_assigned(
    monkeypatch: pytest.MonkeyPatch, num_gpus: float | None, expected: AssignedDevice
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert assigned_device(num_gpus) == expected


@pytest.mark.parametrize("num_gpus", [None, 1.0])
def test_without_a_gpu_the_cpu_computes(num_gpus: float | None) -> None:
    assert assigned_device(num_gpus) == AssignedDevice(CPU)


def test_a_part_of_a_gpu_is_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    for assigned in (AssignedDevice(GPU), AssignedDevice(GPU, 0.25), AssignedDevice(CPU)):
        assigned.limit_memory()
    assert limits == [0.25]
