"""The most that a step may ask of a GPU, by the kind of step.

Each kernel costs the host some 5 microseconds, and each wait ends its running ahead: a step with many of either leaves
the device idle. Raise a limit only for what it is worth. A limit that a step has grown far away from would let the
next change take all of it back, so it fails too, until it is lowered. docs/benchmarks.md has the figures over time.

Two kinds of step can't be counted here: what `torch_compile` fuses, since a compiler needs a device that computes, and
float16, whose loss scale depends on the numbers. `benchmarks/gpu/check.sh` has both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sienn_ray.datasets.schema import RowKind
from sienn_ray.inference.engine import SamplingParams
from sienn_ray.training.recomputation import Recomputation
from tests.support.fake_cuda import Counts
from tests.unit.gpu import shapes
from tests.unit.gpu.decoding_steps import Batch
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


@dataclass(frozen=True)
class DecodingCase:
    """A kind of step of the engine, and what it may ask for."""

    shape: Shape
    batch: Batch
    limits: Limits
    # As a graph replays it; None where it isn't captured.
    replayed: Limits | None = None
    num_layers: int = 1


_MIXED = Batch(32, num_adapters=8)
_DORA = Batch(32, num_adapters=8, with_dora=True)
_PREFILL = Batch(32, num_adapters=8, with_dora=True, prompt_tokens=512)

DECODING = {
    "llama, one request": DecodingCase(shapes.llama_8b, Batch(1), Limits(46, 28, 0), Limits(46, 28, 0)),
    "llama": DecodingCase(shapes.llama_8b, Batch(32), Limits(46, 28, 0), Limits(46, 28, 0)),
    "llama, adapters and none": DecodingCase(shapes.llama_8b, _MIXED, Limits(78, 28, 0), Limits(85, 29, 0)),
    "llama, DoRA": DecodingCase(shapes.llama_8b, _DORA, Limits(92, 28, 0), Limits(99, 29, 0)),
    "llama, DoRA beside a prompt": DecodingCase(shapes.llama_8b, _PREFILL, Limits(115, 33, 0)),
    "llama, few long requests": DecodingCase(shapes.llama_8b, replace(_MIXED, num_long=2), Limits(86, 33, 0)),
    "qwen, adapters and none": DecodingCase(shapes.qwen_05b, _MIXED, Limits(78, 28, 0), Limits(85, 29, 0)),
    "qwen, DoRA beside a prompt": DecodingCase(shapes.qwen_05b, _PREFILL, Limits(121, 33, 0)),
    "mistral, adapters and none": DecodingCase(shapes.mistral_7b, _MIXED, Limits(78, 31, 0), Limits(85, 32, 0)),
    "mistral, DoRA beside a prompt": DecodingCase(shapes.mistral_7b, _PREFILL, Limits(115, 39, 0)),
    "gemma2, adapters and none": DecodingCase(shapes.gemma2_2b, _MIXED, Limits(118, 40, 0), Limits(125, 41, 0), 2),
    "gemma2, DoRA beside a prompt": DecodingCase(shapes.gemma2_2b, _PREFILL, Limits(163, 53, 0), num_layers=2),
}


@dataclass(frozen=True)
class SamplingCase:
    """Ways to draw the tokens of a step, and what their choice may ask for: kernels, and waits of the host."""

    params: tuple[SamplingParams, ...]
    kernels: int
    waits: int

    def check(self, name: str, counts: Counts) -> None:
        """Compare with a step.

        Raises:
            AssertionError: More is asked of the device.
        """
        _check(name, "kernels", counts.num_launches, self.kernels, f"all: {counts.launches}")
        waits = f"{dict(counts.syncs)}, uploads {dict(counts.uploads)}"
        _check(name, "waits of the host for the device", counts.num_waits, self.waits, waits)


_AS_IT_COMES = SamplingParams()
_GREEDY = replace(_AS_IT_COMES, do_sample=False, repetition_penalty=1.0)
_LOGPROBS = replace(_AS_IT_COMES, num_logprobs=5)
_PENALIZED = replace(_AS_IT_COMES, presence_penalty=0.5, frequency_penalty=0.5)
_UNBOUNDED = replace(_AS_IT_COMES, temperature=1.0, top_p=1.0, top_k=0)

SAMPLING = {
    "greedy": SamplingCase((_GREEDY,) * 32, 11, 1),
    "as it comes": SamplingCase((_AS_IT_COMES,) * 32, 15, 1),
    "as it comes, and greedy": SamplingCase((_AS_IT_COMES, _GREEDY) * 16, 25, 1),
    "penalties": SamplingCase((_PENALIZED,) * 32, 20, 1),
    "log-probabilities": SamplingCase((_LOGPROBS,) * 32, 22, 2),
    "all ways": SamplingCase((_GREEDY, _AS_IT_COMES, _PENALIZED, _UNBOUNDED) * 8, 37, 2),
    "all ways, log-probabilities": SamplingCase((_GREEDY, _AS_IT_COMES, _PENALIZED, _LOGPROBS, _UNBOUNDED) * 6, 44, 3),
}
