"""Speed and memory of training: tokens a second by size of model and micro batch, and what a step is made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from checks import Check, Figure, NotThere, Place

if TYPE_CHECKING:
    from training_runs import Measured

# Tokens a second without recomputation, on one H100.
_GOAL_8B = 12_000.0
_GOAL_BUSY = 0.9
# Of 32 layers of 156 kernels each and 58 others, by tests/unit/gpu/limits.py, with some for copies within the loop.
_MAX_LAUNCHES = 5200


def speed(shape: str, load: str, place: Place) -> Iterator[Figure]:
    """Train without recomputation, at one size of a micro batch."""
    run = ours(shape, load, place)
    is_judged = shape == "8B" and load != "800"
    yield Figure("speed", run.tokens_per_s, "tokens/s", at_least=_GOAL_8B if is_judged else None, is_goal=True)
    yield from _memory(run)
    if run.lowered_to is not None:
        # The name says how many tokens were wanted, and this how many there were.
        yield Figure("tokens that a micro batch was lowered to", run.lowered_to)


def recomputation(shape: str, place: Place) -> Iterator[Figure]:
    """Train as the product chooses by the memory that there is, and with whole layers computed twice."""
    from training_runs import load_of, measured

    for name, wanted in (("as memory asks for", None), ("whole layers", True)):
        run = measured(shape, load_of("16k", place), place, gradient_checkpointing=wanted, num_timed=3)
        place.facts[f"training {shape} 16k, {name}"] = run.facts
        for figure in (Figure("speed", run.tokens_per_s, "tokens/s"), *_memory(run)):
            yield replace(figure, name=f"{name}: {figure.name}")


def anatomy(shape: str, load: str, place: Place) -> Iterator[Figure]:
    """Profile a step in the middle of a run."""
    from training_runs import load_of, profiled

    found = profiled(shape, load_of(load, place), place, gradient_checkpointing=False)
    place.facts[f"kernels of a training step, {shape} {load}"] = found.profile.top
    yield Figure("launches of a step", found.profile.num_launches, at_most=_MAX_LAUNCHES, is_goal=True)
    yield Figure("waits of the host in a step", found.num_syncs, at_most=1)
    yield Figure("seconds of a step", found.measured.step_s, "s")
    if found.busy_share is not None:
        limit = _GOAL_BUSY if load == "4k" else None
        yield Figure("share of a step in which the GPU computes", found.busy_share, at_least=limit, is_goal=True)


def in_nf4(shape: str, load: str, place: Place) -> Iterator[Figure]:
    """Train over a base model in NF4; the goal for its speed is a peer's."""
    run = ours(shape, load, place, quantization="nf4")
    yield Figure("speed", run.tokens_per_s, "tokens/s")
    yield from _memory(run)


def ours(shape: str, load: str, place: Place, quantization: str | None = None) -> Measured:
    """The run of a size, which is done once a process.

    Raises:
        NotThere: The base model can't be quantized here.
    """
    if quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise NotThere("not verified: bitsandbytes isn't installed")
    from training_runs import load_of, measured

    name = f"training {shape} {load}" + (f" {quantization}" if quantization else "")
    if name not in place.kept:
        place.kept[name] = measured(
            shape, load_of(load, place), place, gradient_checkpointing=False, quantization=quantization
        )
    found: Measured = place.kept[name]
    place.facts[name] = found.facts
    return found


def _memory(run: Measured) -> Iterator[Figure]:
    yield Figure("peak memory", run.peak_bytes / 2**30, "GiB")
    yield Figure("memory beyond the weights, a token", run.activation_bytes_per_token / 2**20, "MiB")


def _speed(shape: str, load: str) -> Callable[[Place], Iterator[Figure]]:
    return lambda place: speed(shape, load, place)


CHECKS = (
    Check("training speed/8B 4k tokens", _speed("8B", "4k"), 45.0),
    Check("training anatomy/8B 4k tokens", lambda place: anatomy("8B", "4k", place), 30.0),
    Check("training speed/8B 16k tokens", _speed("8B", "16k"), 45.0),
    Check("training speed/8B 4k tokens, NF4", lambda place: in_nf4("8B", "4k", place), 45.0),
    Check("training speed/8B 16k tokens, recomputed", lambda place: recomputation("8B", place), 60.0),
)
# What no goal is about; behind all that one is about, since time may not suffice.
FURTHER_CHECKS = (
    *(
        Check(f"training speed/{shape} {load} tokens", _speed(shape, load), 45.0)
        for shape, load in (("1B", "4k"), ("1B", "16k"), ("135M", "4k"), ("135M", "16k"))
    ),
    *(Check(f"training speed/{shape} 800 tokens", _speed(shape, "800"), 45.0) for shape in ("8B", "1B", "135M")),
    Check("training anatomy/8B 800 tokens", lambda place: anatomy("8B", "800", place), 30.0),
)
