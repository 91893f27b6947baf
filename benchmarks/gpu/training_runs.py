"""Runs of the product's training loop over random models and rows, timed step by step."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from checks import Place
from lone_loop import Clock, Worker, fine_tune
from models import TokenRow, device_of, in_four_bits, llama_config, random_llama, random_rows, restored_modules
from steps import token_limit, training_config
from timing import Profile, Profiler, SyncCount

from sienn_ray.precision import allow_tf32
from sienn_ray.training.hardware import peak_memory_bytes
from sienn_ray.training.run_state import read_state

_WARM_UP, _TIMED = 2, 5


@dataclass(frozen=True)
class Load:
    """What a step is made of.

    Args:
        tokens: Tokens of a micro batch, which is all of a step.
        mean_length: Tokens of a row in the mean.
    """

    tokens: int
    mean_length: int

    def rows(self, num_steps: int, vocab_size: int) -> list[TokenRow]:
        """Rows of so many steps, each of exactly that many tokens but for the order of the rows."""
        return random_rows(num_steps * self.num_rows, self.mean_length, vocab_size)

    @property
    def num_rows(self) -> int:
        """Rows of a step."""
        return self.tokens // self.mean_length


LOADS = {"800": Load(800, 200), "4k": Load(4096, 512), "16k": Load(16_384, 512)}
_TINY_LOADS = {"800": Load(64, 16), "4k": Load(128, 16), "16k": Load(256, 16)}


def load_of(name: str, place: Place) -> Load:
    """A load by its name."""
    return (_TINY_LOADS if place.is_rehearsal else LOADS)[name]


@dataclass(frozen=True)
class Measured:
    """A run.

    Args:
        tokens_per_s: Tokens a second, after the steps that warm up.
        step_s: Median seconds of a step.
        peak_bytes: Most memory that tensors took on a GPU; of the process on a CPU.
        weight_bytes: Memory of the base model and adapter before the first step, on a GPU.
        step_tokens: Tokens of a step in the mean.
        facts: What the product chose.
        lowered_to: Tokens that a micro batch was lowered to, where memory didn't suffice for more.
    """

    tokens_per_s: float
    step_s: float
    peak_bytes: int
    weight_bytes: int
    step_tokens: float
    facts: dict[str, Any]
    lowered_to: int | None = None

    @property
    def activation_bytes_per_token(self) -> float:
        """Memory beyond the weights, for each token of a step."""
        return (self.peak_bytes - self.weight_bytes) / self.step_tokens


class _Worker(Worker):
    """A worker that reads from checkpoints how much memory turned out to suffice for."""

    lowered_to: int | None = None

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        if checkpoint is not None:
            self.lowered_to = read_state(checkpoint).known_limits.max_tokens
        super().report(metrics, checkpoint)


def measured(
    shape: str,
    load: Load,
    place: Place,
    *,
    on_step: Callable[[int], None] | None = None,
    num_timed: int = _TIMED,
    **fields: Any,
) -> Measured:
    """Train for some steps.

    Args:
        shape: Of the base model.
        load: What a step is made of.
        place: Where.
        on_step: Called after each step with the number of steps done.
        num_timed: Steps that count.
        fields: Hyperparameters.
    """
    num_steps = _WARM_UP + (2 if place.is_rehearsal else num_timed)
    rows = load.rows(num_steps, llama_config(shape, place).vocab_size)
    config = _config(rows, load, **fields)
    device = device_of(place)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    weight_bytes = 0

    def base() -> Any:
        nonlocal weight_bytes
        model = random_llama(shape, place)
        if config.quantization is not None:
            model = in_four_bits(model)
            torch.cuda.empty_cache()
        if device.type == "cuda":
            weight_bytes = torch.cuda.memory_allocated()
        return model

    worker = _Worker(device)
    allow_tf32()  # as a training worker does
    try:
        with restored_modules():
            trained = fine_tune(base, config, rows, worker, pad_token_id=0, clock=Clock(on_step))
    finally:
        torch.set_float32_matmul_precision("highest")
    marks = trained.clock.marks
    steps_s = [
        after.wall_s - before.wall_s for before, after in zip(marks[_WARM_UP - 1 :], marks[_WARM_UP:], strict=False)
    ]
    return Measured(
        tokens_per_s=trained.tokens_per_s(_WARM_UP),
        step_s=statistics.median(steps_s),
        peak_bytes=peak_memory_bytes(device),
        weight_bytes=weight_bytes,
        step_tokens=marks[-1].num_tokens / len(marks),
        facts=trained.outcome.facts.model_dump(mode="json"),
        lowered_to=worker.lowered_to,
    )


def _config(rows: Sequence[TokenRow], load: Load, **fields: Any) -> Any:
    # Rows differ in length, and so do steps, none of which is to be divided.
    options = {"batch_size": load.num_rows, "num_epochs": 1, "precision": "bfloat16"} | token_limit(2 * load.tokens)
    return training_config(rows, **options | fields)


@dataclass(frozen=True)
class Profiled:
    """A step in the middle of a run.

    Args:
        measured: The run, whose median step is one without the profiler.
        profile: What the profiler saw of another one.
        num_syncs: Waits of the host for the device in a third one.
    """

    measured: Measured
    profile: Profile
    num_syncs: int

    @property
    def busy_share(self) -> float | None:
        """Share of a step in which the device computes; None on a CPU."""
        return None if self.profile.kernel_s is None else self.profile.kernel_s / self.measured.step_s


def profiled(shape: str, load: Load, place: Place, **fields: Any) -> Profiled:
    """Train, profile one step, and count the host's waits in another."""
    profiler, syncs = Profiler(place.device), SyncCount(place.device)
    first = _WARM_UP + (0 if place.is_rehearsal else 3)
    profile, num_syncs = Profile(0, None, {}), 0

    def on_step(num_done: int) -> None:
        nonlocal profile, num_syncs
        if num_done == first:
            profiler.start()
        elif num_done == first + 1:
            profile = profiler.stop()
            syncs.start()
        elif num_done == first + 2:
            num_syncs = syncs.stop()

    run = measured(shape, load, place, on_step=on_step, **fields)
    return Profiled(run, profile, num_syncs)
