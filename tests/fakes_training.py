"""Stand-ins for what Ray gives a training worker, and for who listens to it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from sienn_ray.training.reporting import Progress

TokenRow = tuple[list[int], list[int]]


class RecordingReporter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[Progress] = []

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)


class FakeShard:
    """What Ray Data hands a worker: tables of tokenized rows; remembers how it was asked."""

    def __init__(self, rows: list[TokenRow]) -> None:
        self._rows = rows
        self.options: dict[str, Any] = {}

    def iter_batches(self, *, batch_size: int, batch_format: str, **options: Any) -> Iterator[pa.Table]:
        assert batch_format == "pyarrow"
        self.options = options
        rows = list(self._rows)
        if "local_shuffle_seed" in options:
            random.Random(options["local_shuffle_seed"]).shuffle(rows)
        for start in range(0, len(rows), batch_size):
            input_ids, labels = zip(*rows[start : start + batch_size], strict=True)
            yield pa.table({"input_ids": list(input_ids), "labels": list(labels)})


class FakeWorker:
    """A worker of a group without Ray: alone, or one of several processes that have joined a process group.

    Args:
        rows: Its shards by name.
        checkpoints: Where it keeps what it reports, as `1`, `2`, ...; the last one is there at the next start.
        rank: Its number.
        world_size: Workers in the group.
    """

    def __init__(
        self, rows: dict[str, list[TokenRow]], checkpoints: Path, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self._shards = {name: FakeShard(shard) for name, shard in rows.items()}
        self._checkpoints = checkpoints
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device("cpu")
        self.metrics: list[dict[str, Any]] = []

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        return model if self.world_size == 1 else torch.nn.parallel.DistributedDataParallel(model)

    def shard(self, name: str) -> Any:
        return self._shards[name]

    @contextmanager
    def last_checkpoint(self) -> Iterator[Path | None]:
        yield max(self._checkpoints.glob("*"), key=lambda folder: int(folder.name), default=None)

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        self.metrics.append(metrics)
        if checkpoint is not None:
            shutil.copytree(checkpoint, self._checkpoints / str(len(list(self._checkpoints.glob("*"))) + 1))
