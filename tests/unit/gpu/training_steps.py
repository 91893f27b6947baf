"""Steps of the training loop on the fake device, and what each asks of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.settings import Settings
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.loop import FineTune
from sienn_ray.training.recomputation import Recomputation, recompute
from sienn_ray.training.reporting import Progress, RunCommand
from sienn_ray.training.spec import LoopSpec
from tests.support.fake_cuda import CUDA, Counts, fake_cuda, random_model
from tests.support.fakes_training import FakeRows, FakeWorker
from tests.unit.gpu.nf4 import quantize
from tests.unit.gpu.shapes import Shape

# The first step makes the optimizer's state.
_STEPS_BEFORE = 1


@dataclass(frozen=True)
class Run:
    """A kind of run, described by what it is made of.

    Args:
        options: Hyperparameters.
        lora: Of the adapter.
        row_kind: What its rows are.
        row_tokens: Tokens of a row.
        shared_tokens: Of these, the first ones that all rows of a step have in common.
        rows_per_step: Rows of a step.
        recomputation: Set by hand, since the fake device has memory enough to need none.
    """

    options: tuple[tuple[str, Any], ...] = ()
    lora: tuple[tuple[str, Any], ...] = ()
    row_kind: RowKind = RowKind.CONVERSATION
    row_tokens: int = 128
    shared_tokens: int = 0
    rows_per_step: int = 4
    recomputation: Recomputation = Recomputation.NONE

    def config(self) -> TrainingConfig:
        lora = LoraSettings(**{"r": 16, "lora_dropout": 0.0, **dict(self.lora)})
        options: dict[str, Any] = {
            "batch_size": self.rows_per_step,
            "gradient_accumulation_steps": 1,
            "max_length": 2 * self.row_tokens,
            "precision": "bfloat16",
            "gradient_checkpointing": False,
        }
        return TrainingConfig(base_model="shapes/any", lora=lora, num_epochs=1, **{**options, **dict(self.options)})

    def rows(self, config: TrainingConfig) -> list[TokenArrays]:
        """Rows of a few steps."""
        num = config.rows_per_step * (_STEPS_BEFORE + 4)
        return [row for number in range(num) for row in self._example(number)]

    def _example(self, number: int) -> Iterator[TokenArrays]:
        for side in range(self.row_kind.num_sequences):
            own = [1000 + (7 * number + 3 * side + index) % 500 for index in range(self.row_tokens)]
            ids = [*range(1, self.shared_tokens + 1), *own[self.shared_tokens :]]
            prompt = self.row_tokens // 2
            yield TokenArrays(ids, [*[IGNORE_INDEX] * prompt, *ids[prompt:]], is_desirable=number % 2 == 0)


class _EnoughError(Exception):
    """The steps that were wanted are done."""


class _Watch:
    """Keeps what had been counted when the first steps were over, and ends the run after the next."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.step: Counts | None = None

    def report(self, progress: Progress) -> None:
        if (progress.current_step or 0) == _STEPS_BEFORE:
            self._counts.clear()
        elif (progress.current_step or 0) > _STEPS_BEFORE:
            self.step = copy.deepcopy(self._counts)
            raise _EnoughError

    def command(self) -> RunCommand:
        return RunCommand.GO_ON

    def is_awaited(self) -> bool:
        return True


class _CudaWorker(FakeWorker):
    def __init__(self, checkpoints: Path) -> None:
        super().__init__(checkpoints)
        self.device = CUDA


def training_step(shape: Shape, num_layers: int, run: Run, folder: Path) -> Counts:
    """Counts of one optimizer step, from the rows to the changed weights, by the training loop itself."""
    config = run.config()
    rows = FakeRows(run.rows(config), run.row_kind.num_sequences)
    with fake_cuda() as counts:
        watch = _Watch(counts)
        settings = Settings(report_interval_s=1e-9, checkpoint_interval_s=1e9)
        spec = LoopSpec(config, settings, watch, len(rows), 0, row_kind=run.row_kind)
        base = random_model(shape(num_layers), CUDA, getattr(torch, config.precision))
        if config.quantization is not None:
            quantize(base)
        recompute(base, run.recomputation)
        try:
            with FineTune(spec, _CudaWorker(folder), rows, None, 2) as loop:
                loop.train(base)
        except _EnoughError:
            pass
    assert watch.step is not None
    return watch.step
