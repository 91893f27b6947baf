"""What the training loop needs of the group of workers that it runs in, and Ray Train behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist


class Worker(Protocol):
    """One worker of a group that trains together."""

    @property
    def rank(self) -> int:
        """Its number in the group, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Workers in the group."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """Make a model's gradients the mean over all workers."""
        ...

    def shard(self, name: str) -> Any:
        """Iterator over a dataset's rows: an equal share of `train`, all of `evaluation`."""
        ...

    def last_checkpoint(self) -> AbstractContextManager[Path | None]:
        """Folder of the run's last checkpoint, while the context is open."""
        ...

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Hand over a checkpoint; a barrier, so every worker calls it, all but one with None."""
        ...


class RayTrainWorker:
    """`Worker` of the Ray Train run that this process belongs to."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """See `Worker.prepare`."""
        prepared: torch.nn.Module = ray.train.torch.prepare_model(model)
        return prepared

    def shard(self, name: str) -> Any:
        """See `Worker.shard`."""
        return ray.train.get_dataset_shard(name)

    @contextmanager
    def last_checkpoint(self) -> Iterator[Path | None]:
        """See `Worker.last_checkpoint`."""
        last = ray.train.get_checkpoint()
        if last is None:
            yield None
            return
        with last.as_directory() as folder:
            yield Path(folder)

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """See `Worker.report`."""
        folder = None if checkpoint is None else ray.train.Checkpoint.from_directory(checkpoint)
        ray.train.report(metrics, checkpoint=folder)


def global_sum(value: float, device: torch.device) -> float:
    """Sum of a number over all workers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)
