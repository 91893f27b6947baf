"""The most that a step may ask of a GPU, by the kind of step.

Each kernel costs the host some 5 microseconds, and each wait ends its running ahead: a step with many of either leaves
the device idle. Raise a limit only for what it is worth. A limit that a step has grown far away from would let the
next change take all of it back, so it fails too, until it is lowered. docs/benchmarks.md has the figures over time.

Two kinds of step can't be counted here: what `torch_compile` fuses, since a compiler needs a device that computes, and
float16, whose loss scale depends on the numbers. `benchmarks/gpu/check.sh` has both.
"""

from __future__ import annotations

from dataclasses import dataclass

from sienn_ray.datasets.schema import RowKind
from sienn_ray.training.recomputation import Recomputation
from tests.support.fake_cuda import Counts
from tests.unit.gpu import shapes
from tests.unit.gpu.shapes import Shape
from tests.unit.gpu.training_steps import Run

_PLACE = "tests/unit/gpu/limits.py"
# Kernels that a step may have less than its limit before the limit has to be lowered.
_MAX_SLACK = 5


@dataclass(frozen=True)
class Limits:
    """Limits of one kind of step.

    Args:
        layer: Kernels of a decoder layer, in training both ways.
        rest: Kernels of everything else.
        waits: Times that the host waits for the device, uploads that block included.
    """

    layer: int
    rest: int
    waits: int

    def check(self, name: str, smaller: Counts, larger: Counts, num_layers: int) -> None:
        """Compare with steps of two models, of so many layers and of twice as many.

        Raises:
            AssertionError: More is asked of the device, or the limit is slack.
        """
        layer = (larger.num_launches - smaller.num_launches) / num_layers
        rest = smaller.num_launches - layer * num_layers
        per_operator = larger.launches - smaller.launches
        _check(name, "kernels a decoder layer", layer, self.layer, f"of {num_layers} layers: {per_operator}")
        _check(name, "kernels apart from its layers", rest, self.rest, f"all: {smaller.launches}")
        waits = f"{dict(larger.syncs)}, uploads {dict(larger.uploads)}"
        _check(name, "waits of the host for the device", larger.num_waits, self.waits, waits, max_slack=0)


def _check(name: str, what: str, found: float, limit: int, details: str, max_slack: int = _MAX_SLACK) -> None:
    assert found <= limit, (
        f"a step of '{name}' has {found:g} {what}, {limit} are allowed: ask less of the device, or change the limit in "
        f"{_PLACE} and say in docs/benchmarks.md what it is worth; {details}"
    )
    assert found >= limit - max_slack, (
        f"a step of '{name}' has {found:g} {what}, far fewer than the {limit} that are allowed: lower the limit in "
        f"{_PLACE} to {found:g}"
    )


@dataclass(frozen=True)
class TrainingCase:
    """A kind of run, and what its steps may ask for."""

    shape: Shape
    run: Run
    limits: Limits
    # Where layers differ, as many as repeat.
    num_layers: int = 1


_PAIRS = Run((("method", "dpo"),), row_kind=RowKind.PREFERENCE, shared_tokens=48)
_LABELLED = Run((("method", "kto"),), row_kind=RowKind.UNPAIRED_PREFERENCE)
_SFT = Run()

TRAINING = {
    "sft": TrainingCase(shapes.llama_8b, _SFT, Limits(156, 58, 1)),
    "sft, one row": TrainingCase(shapes.llama_8b, Run(rows_per_step=1), Limits(156, 58, 1)),
    "sft, 32 rows": TrainingCase(shapes.llama_8b, Run(rows_per_step=32, row_tokens=64), Limits(156, 58, 1)),
    "sft, shared prefix": TrainingCase(shapes.llama_8b, Run(shared_tokens=48), Limits(164, 58, 1)),
    "dpo": TrainingCase(shapes.llama_8b, _PAIRS, Limits(204, 126, 1)),
    "kto": TrainingCase(shapes.llama_8b, _LABELLED, Limits(298, 192, 1)),
    "dora": TrainingCase(shapes.llama_8b, Run(lora=(("use_dora", True),)), Limits(437, 35, 1)),
    "nf4": TrainingCase(shapes.llama_8b, Run((("quantization", "nf4"),)), Limits(198, 58, 1)),
    "dropout": TrainingCase(shapes.llama_8b, Run(lora=(("lora_dropout", 0.05),)), Limits(184, 52, 1)),
    "rslora": TrainingCase(shapes.llama_8b, Run(lora=(("use_rslora", True),)), Limits(156, 58, 1)),
    "all of a layer twice": TrainingCase(shapes.llama_8b, Run(recomputation=Recomputation.FULL), Limits(207, 81, 1)),
    "part of a layer twice": TrainingCase(
        shapes.llama_8b, Run(recomputation=Recomputation.SELECTIVE), Limits(185, 81, 1)
    ),
    "qwen": TrainingCase(shapes.qwen_05b, _SFT, Limits(156, 58, 1)),
    "smollm2": TrainingCase(shapes.smollm2_135m, _SFT, Limits(156, 58, 1)),
    "mistral, window": TrainingCase(shapes.mistral_7b, _SFT, Limits(156, 58, 1)),
    "gemma2, window and softcap": TrainingCase(shapes.gemma2_2b, _SFT, Limits(339, 66, 1), num_layers=2),
    # Row by row: attention over all rows at once knows no softcap.
    "gemma2, 16 rows": TrainingCase(
        shapes.gemma2_2b, Run(rows_per_step=16, row_tokens=64), Limits(735, 66, 1), num_layers=2
    ),
}
