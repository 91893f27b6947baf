"""A worker of a Ray Train run, the only part of the training loop that needs Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch


class RayTrainWorker:
    """`Worker` of the Ray Train run that this process belongs to."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

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
