"""Stand-ins for what Ray gives a training worker, and for who listens to it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sienn_ray.datasets.token_stream import Share, TokenArrays
from sienn_ray.training.reporting import Progress, RunCommand

TokenRow = tuple[list[int], list[int]]


class RecordingReporter:
    """Keeps what it is told, and wants a pause, or an end at once, after so many steps.

    Attributes:
        fenced_after: The answer is no from the so-many-eth question on whether the run is awaited.
    """

    def __init__(self, pause_after: int | None = None, stop_after: int | None = None) -> None:
        self.reports: list[Progress] = []
        self.fenced_after: int | None = None
        self._num_asked = 0
        self._pause_after = pause_after
        self._stop_after = stop_after

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)

    def command(self) -> RunCommand:
        steps = max((report.current_step or 0 for report in self.reports), default=0)
        if self._stop_after is not None and steps >= self._stop_after:
            return RunCommand.STOP
        wants_pause = self._pause_after is not None and steps >= self._pause_after
        return RunCommand.PAUSE if wants_pause else RunCommand.GO_ON

    def is_awaited(self) -> bool:
        self._num_asked += 1
        return self.fenced_after is None or self._num_asked < self.fenced_after


class FakeRows:
    """Tokenized rows in memory, shuffled anew in each epoch; dealt out as `TokenStream` does.

    Args:
        rows: They, or pairs of them; a third item is what `TokenArrays` has of it.
        rows_per_example: 2 for pairs, which stand behind each other.
    """

    def __init__(self, rows: Sequence[TokenRow | TokenArrays], rows_per_example: int = 1) -> None:
        starts = range(0, len(rows), rows_per_example)
        self._examples = [rows[start : start + rows_per_example] for start in starts]
        self.num_passes = 0

    def __len__(self) -> int:
        return len(self._examples)

    def steps(self, share: Share, *, first_step: int, num_steps: int) -> Iterator[tuple[int, list[TokenArrays]]]:
        self.num_passes += 1
        steps_per_epoch = share.steps_per_epoch(len(self._examples))
        for step in range(first_step, num_steps):
            order = list(range(len(self._examples)))
            random.Random(step // steps_per_epoch).shuffle(order)
            start = step % steps_per_epoch * share.rows_per_step
            own = order[start : start + share.rows_per_step][share.rank :: share.world_size]
            yield step, [TokenArrays(*row) for number in own for row in self._examples[number]]


class FakeWorker:
    """A worker of a group without Ray: alone, or one of several processes that have joined a process group.

    Args:
        checkpoints: Where it keeps what it reports, as `1`, `2`, ...; the last one is there at the next start.
        rank: Its number.
        world_size: Workers in the group.
    """

    def __init__(self, checkpoints: Path, *, rank: int = 0, world_size: int = 1) -> None:
        self._checkpoints = checkpoints
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device("cpu")
        self.metrics: list[dict[str, Any]] = []

    @contextmanager
    def last_checkpoint(self) -> Iterator[Path | None]:
        yield max(self._checkpoints.glob("*"), key=lambda folder: int(folder.name), default=None)

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        self.metrics.append(metrics)
        if checkpoint is not None:
            shutil.copytree(checkpoint, self._checkpoints / str(len(list(self._checkpoints.glob("*"))) + 1))
