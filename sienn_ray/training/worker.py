"""The group of workers as the training loop sees it: a protocol, and exchanges of numbers and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Worker(Protocol):
    """One worker of a group that trains together."""

    @property
    def rank(self) -> int:
        """The number in the group, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Workers in the group."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        ...

    def last_checkpoint(self) -> AbstractContextManager[Path | None]:
        """Folder of the run's last checkpoint, while the context is open."""
        ...

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Hand over a checkpoint; a barrier, so every worker calls it, all but one with None."""
        ...


def global_sums(values: Sequence[float], device: torch.device) -> list[float]:
    """Sums of some numbers over all workers, in one exchange."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) for value in total]


def add_up(values: torch.Tensor) -> torch.Tensor:
    """Return the sums of a tensor over all workers, without waiting for them where the device computes by itself."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


def gathered_counts(values: Sequence[int], device: torch.device) -> list[list[int]]:
    """Return some numbers of each worker, in one exchange."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [list(values)]
    parts = [torch.empty(len(values), dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, torch.tensor(values, dtype=torch.int64, device=device))
    counts: list[list[int]] = torch.stack(parts).tolist()
    return counts


def gathered(values: Sequence[T]) -> list[T]:
    """Values of all workers, those of the first one first; small ones, since they travel as pickles."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return list(values)
    parts: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def global_max(value: int, device: torch.device) -> int:
    """Return the largest of the workers' numbers."""
    return max(number for (number,) in gathered_counts([value], device))


def add_up_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Make every worker's gradients the sums over all workers; one without gradients counts as zeros.

    One exchange of all of them. An adapter is small, so there is nothing to gain from exchanging parts while others
    are being computed, and nothing that a worker with fewer micro batches could wait for.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]  # one data type
    )
    dist.all_reduce(flat)
    for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
