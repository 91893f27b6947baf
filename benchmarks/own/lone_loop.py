"""Our training loop with nothing around it: rows in memory, one worker, a clock; no Ray, no service."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from meter import Mark


class Rows:
    """Tokenized rows in memory, shuffled anew in each epoch.

    Args:
        rows: Each with `input_ids` and `labels`.
        seed: Of the order.
    """

    def __init__(self, rows: Sequence[Any], seed: int) -> None:
        self._rows = rows
        self._seed = seed

    def steps(self, share: Any, *, first_step: int, num_steps: int) -> Iterator[tuple[int, list[Any]]]:
        import numpy as np

        from sienn_ray.datasets.token_stream import TokenArrays

        steps_per_epoch = share.steps_per_epoch(len(self._rows))
        for step in range(first_step, num_steps):
            order = np.random.default_rng([self._seed, step // steps_per_epoch]).permutation(len(self._rows))
            start = step % steps_per_epoch * share.rows_per_step
            own = (self._rows[number] for number in order[start : start + share.rows_per_step])
            yield step, [TokenArrays(list(row.input_ids), list(row.labels)) for row in own]


class Worker:
    """A worker alone, which keeps its last checkpoint in a folder.

    Args:
        device: Where it computes.
        folder: Where its last checkpoint is put; none is kept without one.
        start: The checkpoint that it goes on from.
    """

    rank, world_size = 0, 1

    def __init__(self, device: Any, folder: Path | None = None, start: Path | None = None) -> None:
        self.device = device
        self._folder = folder
        self._start = start

    @contextmanager
    def last_checkpoint(self) -> Iterator[Path | None]:
        yield self._start

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:  # noqa: ARG002
        if checkpoint is not None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            shutil.copytree(checkpoint, self._folder)


class Clock:
    """A reporter that notes when each step was done.

    Args:
        on_step: Called after each step with the number of steps that are done.
        pause_after: Steps after which the run is told to pause; None lets it run to its end.
    """

    def __init__(self, on_step: Callable[[int], None] | None = None, pause_after: int | None = None) -> None:
        self._on_step = on_step
        self._pause_after = pause_after
        self.marks: list[Mark] = []
        self.losses: list[float] = []
        self.train_seconds = 0.0

    def report(self, progress: Any) -> None:
        if progress.num_tokens is None:
            return
        self.marks.append(Mark(time.perf_counter(), time.process_time(), progress.num_tokens))
        self.losses.append(progress.current_loss)
        self.train_seconds = progress.train_seconds
        if self._on_step is not None:
            self._on_step(len(self.marks))

    def is_awaited(self) -> bool:
        """See `Reporter.is_awaited`."""
        return True

    def command(self) -> Any:
        from sienn_ray.training.reporting import RunCommand

        is_over = self._pause_after is not None and len(self.marks) >= self._pause_after
        return RunCommand.PAUSE if is_over else RunCommand.GO_ON


@dataclass(frozen=True)
class Trained:
    """A run that has ended.

    Args:
        clock: Moments, tokens and losses of its steps.
        outcome: The loop's own result.
    """

    clock: Clock
    outcome: Any

    def tokens_per_s(self, num_warm_up: int = 1) -> float:
        """Tokens a second after some steps in which much is done for the first time."""
        first, last = self.clock.marks[num_warm_up - 1], self.clock.marks[-1]
        return (last.num_tokens - first.num_tokens) / (last.wall_s - first.wall_s)

    def cpu_share(self, num_threads: int) -> float:
        """Share of the CPUs that the same steps had."""
        first, last = self.clock.marks[0], self.clock.marks[-1]
        return (last.cpu_s - first.cpu_s) / ((last.wall_s - first.wall_s) * num_threads)


def fine_tune(
    load: Callable[[], Any],
    config: Any,
    rows: Sequence[Any],
    worker: Worker,
    *,
    pad_token_id: int,
    clock: Clock | None = None,
    checkpoint_interval_s: float = 1e9,
) -> Trained:
    """Train with the product's loop.

    Args:
        load: Gives the base model, once rows are being prepared; it is adapted in place.
        config: The `TrainingConfig`.
        rows: An epoch's.
        worker: Where it computes, and where its checkpoints are.
        pad_token_id: The tokenizer's.
        clock: Is told of each step.
        checkpoint_interval_s: Between checkpoints, beside those at the end of an epoch.
    """
    from sienn_ray.settings import Settings
    from sienn_ray.training.loop import FineTune
    from sienn_ray.training.spec import LoopSpec

    clock = clock or Clock()
    spec = LoopSpec(
        config=config,
        settings=Settings(report_interval_s=1e-9, checkpoint_interval_s=checkpoint_interval_s),
        reporter=clock,
        num_train_rows=len(rows),
        num_eval_rows=0,
    )
    with FineTune(spec, worker, Rows(rows, config.seed), None, pad_token_id) as run:
        outcome = run.train(load())
    return Trained(clock, outcome)
