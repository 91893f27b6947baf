"""Decoding steps that the engine replays as CUDA graphs give the logits of those that it computes as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from checks import Check, Figure, Place
from correctness_serving import ADAPTERS, CACHE_BYTES, MODEL_ID, TOLERANCES, saved_adapter

if TYPE_CHECKING:
    import torch

_PROMPT_TOKENS, _NUM_STEPS = 21, 4
# Requests by their adapters. Each decodes behind the one before, so that what a graph reads changes meanwhile: places
# become more and larger, get their first gains, and are others' then.
_BATCHES: dict[str, Sequence[str | None]] = {
    "no adapter": (None, None, None),
    "one adapter": ("rsLoRA", None),
    "another in its place": ("LoRA", None),
    "more places": ("LoRA", "rsLoRA", None),
    "the first gains": ("DoRA", "rsLoRA", None),
    "every kind, in larger places": ("LoRA", "DoRA", None, "rank pattern", "rsLoRA", "DoRA"),
    "one again": ("rsLoRA", None),
    "evicted, and another of its name": ("DoRA", "LoRA", None),
}
_EVICTING = "evicted, and another of its name"


def replayed_steps(precision: str, kind: str, place: Place) -> Iterator[Figure]:
    """Compare a runner with graphs with one without, over the same steps; every step but the first is replayed."""
    import torch
    from models import exact_products, small_model
    from serving_runs import runner_of

    dtype = getattr(torch, precision)
    with exact_products():
        runners = [
            runner_of(small_model(kind, place.device, dtype), CACHE_BYTES, is_graphed=is_graphed)
            for is_graphed in (True, False)
        ]
        adapters = _read(runners[0], kind, place)
        for name, names in _BATCHES.items():
            if name == _EVICTING:
                adapters["DoRA"], adapters["LoRA"] = adapters["LoRA"], adapters["DoRA"]
                for runner, evicted in ((runner, evicted) for runner in runners for evicted in ("DoRA", "LoRA")):
                    runner.lora.forget(evicted)
            found, wanted = (_decoded(runner, names, adapters) for runner in runners)
            worst = float((found - wanted).abs().max() / (wanted.max() - wanted.min()))
            yield Figure(f"{kind}: {name}, largest difference over the range", worst, at_most=TOLERANCES[precision])
    yield from graph_figures(kind, runners[0], at_least=len(_BATCHES))


def graph_figures(name: str, runner: Any, at_least: int) -> Iterator[Figure]:
    """Tell whether steps were replayed, and how many."""
    yield Figure(f"{name}: graphs are off", float(runner.graphs.is_off), at_most=0)
    yield Figure(f"{name}: captured steps", runner.graphs.num_captures, at_least=1)
    yield Figure(f"{name}: replayed steps", runner.graphs.num_replays, at_least=at_least)


def _read(runner: Any, kind: str, place: Place) -> dict[str, Any]:
    from sienn_ray.inference.model.lora_weights import read_lora

    return {
        name: runner.lora.readied(
            read_lora(saved_adapter(name, kind, place), MODEL_ID, runner.lora.layers, runner.dtype)
        )
        for name in ADAPTERS
    }


def _decoded(runner: Any, names: Sequence[str | None], adapters: Mapping[str, Any]) -> torch.Tensor:
    """Logits of steps behind prompts of unlike lengths, computed twice, so that each size is replayed at least once."""
    import torch
    from serving_runs import BLOCK_TOKENS, StepRow

    prompts = [
        [(7 * index * (number + 2) + number) % 290 + 3 for index in range(_PROMPT_TOKENS + 5 * number)]
        for number in range(len(names))
    ]
    num_blocks = -(-(max(map(len, prompts)) + _NUM_STEPS) // BLOCK_TOKENS)
    blocks = [[number + len(names) * index for index in range(num_blocks)] for number in range(len(names))]
    parts = list(zip(prompts, blocks, names, strict=True))
    runner.step([StepRow(ids, 0, own, name, wants_logits=True) for ids, own, name in parts], adapters)
    found = []
    for more in (*range(_NUM_STEPS), *range(_NUM_STEPS)):
        rows = [
            StepRow([*ids, *range(5, 6 + more)], len(ids) + more, own, name, wants_logits=True)
            for ids, own, name in parts
        ]
        found.append(runner.step(rows, adapters).clone())
    return torch.stack(found)


def _in(precision: str) -> Any:
    def check(place: Place) -> Iterator[Figure]:
        from models import SMALL

        for kind in SMALL:
            yield from replayed_steps(precision, kind, place)

    return check


CHECKS = (
    Check("engine/replayed steps in float32", _in("float32"), 60.0),
    Check("engine/replayed steps in bfloat16", _in("bfloat16"), 60.0),
)
