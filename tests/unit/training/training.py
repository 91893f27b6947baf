"""Small runs of the whole loop without Ray."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.settings import Settings
from sienn_ray.training import checkpoint_files
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.loop import FineTune
from sienn_ray.training.micro_batch_limits import NO_LIMITS, MicroBatchLimits
from sienn_ray.training.run_state import RunState, read_state
from sienn_ray.training.sharding import load_base_model
from sienn_ray.training.spec import LoopResult, LoopSpec
from tests.support.fakes_training import FakeRows, FakeWorker, RecordingReporter, TokenRow
from tests.support.tiny_model import TINY_ID

CPU = torch.device("cpu")
EOS = 2


def row(number: int) -> TokenRow:
    """A prompt of three tokens and a completion whose length differs from row to row."""
    completion = [*range(100 + number, 103 + number + 3 * (number % 3)), EOS]
    prompt = [10, 50 + number % 2, 51]
    return [*prompt, *completion], [*[IGNORE_INDEX] * len(prompt), *completion]


def preferences(numbers: Iterable[int]) -> list[TokenRow]:
    """Pairs of answers to one prompt each, chosen and then rejected."""
    pairs = ((row(number), row(number + 7)) for number in numbers)
    return [side for chosen, other in pairs for side in (chosen, ([*chosen[0][:3], *other[0][3:]], other[1]))]


def labelled(numbers: Iterable[int]) -> list[TokenArrays]:
    """Answers, every second of which is desirable."""
    return [TokenArrays(*row(number), is_desirable=number % 2 == 0) for number in numbers]


TRAIN_ROWS = [row(number) for number in range(12)]
EVAL_ROWS = [row(number) for number in range(20, 23)]
SETTINGS = Settings(report_interval_s=1e-9, checkpoint_interval_s=1e9)


def config_of(**options: Any) -> TrainingConfig:
    lora = LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0)
    defaults = {"base_model": TINY_ID, "learning_rate": 1e-3, "num_epochs": 2, "lora": lora, "precision": "float32"}
    return TrainingConfig(**{**defaults, **options})


@dataclass
class Trainee:
    """One run: its options, and what it runs on."""

    model_folder: Path
    checkpoints: Path
    config: TrainingConfig = field(default_factory=config_of)
    settings: Settings = SETTINGS
    rows: FakeRows = field(default_factory=lambda: FakeRows(TRAIN_ROWS))
    eval_rows: FakeRows | None = field(default_factory=lambda: FakeRows(EVAL_ROWS))
    reporter: RecordingReporter = field(default_factory=RecordingReporter)
    row_kind: RowKind = RowKind.CONVERSATION
    known_limits: MicroBatchLimits = NO_LIMITS
    has_validation_dataset: bool = False
    # Folder of the adapter that it starts from.
    start: Path | None = None

    def spec(self) -> LoopSpec:
        return LoopSpec(
            self.config,
            self.settings,
            self.reporter,
            len(self.rows),
            0 if self.eval_rows is None else len(self.eval_rows),
            row_kind=self.row_kind,
            known_limits=self.known_limits,
            has_validation_dataset=self.has_validation_dataset,
        )

    def train(self, base: Any = None, worker: FakeWorker | None = None) -> LoopResult:
        self.checkpoints.mkdir(exist_ok=True)
        worker = worker or FakeWorker(self.checkpoints)
        fetch_start = None if self.start is None else self._fetch_start
        with FineTune(self.spec(), worker, self.rows, self.eval_rows, EOS, fetch_start) as run:
            return run.train(base or load_base_model(self.model_folder, self.config, worker, torch.float32))

    def _fetch_start(self) -> AbstractContextManager[Path]:
        assert self.start is not None
        return nullcontext(self.start)

    @property
    def last(self) -> Path:
        return max(self.checkpoints.glob("*"), key=lambda folder: int(folder.name))

    @property
    def state(self) -> RunState:
        return read_state(self.last)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        weights: dict[str, torch.Tensor] = load_file(self.last / checkpoint_files.ADAPTER_WEIGHTS)
        return weights

    @property
    def losses(self) -> list[float]:
        return [
            loss for entry in self.state.history for loss in (entry.train_loss, entry.eval_loss) if loss is not None
        ]
