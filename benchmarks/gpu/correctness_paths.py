"""Gradients along the training loop's other paths: float16, recomputation, dropout, compiled layers, preferences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checks import Check, Figure, Place
from correctness_training import MANY_ROWS, compared, computed, in_half, relative
from parts import Part, without

if TYPE_CHECKING:
    import torch

_KIND = "grouped queries"
# Of the same products on the same device, whose sums a GPU may add up in another order.
_SAME_IN_BFLOAT16 = 0.02
# A loss scale that overflows, as the first one of a run may.
_TOO_LARGE_SCALE = 2.0**40

Gradients = tuple[float, "dict[str, torch.Tensor]"]


def in_float16(place: Place) -> Iterator[Figure]:
    """Compare with float32 on the CPU, at the loss scale that a run begins with and at one that overflows."""
    import torch

    expected = computed(_KIND, "cpu")
    for name, scale in (("first scale", None), ("scale that overflows", _TOO_LARGE_SCALE)):
        scales: list[float] = []
        found = computed(_KIND, place.device, dtype=torch.float16, loss_scale=scale, scales=scales)
        yield from in_half(name, found, expected)
        yield Figure(f"{name}: loss scale in the end", scales[0], at_least=2)


def shared_beginning(place: Place) -> Iterator[Figure]:
    """Compare many rows that begin alike in bfloat16 with float32 on the CPU."""
    import torch

    expected = computed(_KIND, "cpu", num_rows=MANY_ROWS)
    found = computed(_KIND, place.device, num_rows=MANY_ROWS, dtype=torch.bfloat16)
    yield from in_half(f"{MANY_ROWS} rows", found, expected)


def recomputed(place: Place) -> Iterator[Figure]:
    """Compare layers that are computed again with layers that aren't, in bfloat16, without dropout and with it."""
    for dropout in (0.0, 0.1):
        expected = _at_level("none", dropout, place)
        for level in ("selective", "full"):
            found = _at_level(level, dropout, place)
            yield from _same(f"{level}, dropout {dropout:g}", found, expected)


def compiled(place: Place) -> Iterator[Figure]:
    """Compare layers that are compiled with layers that aren't, in bfloat16."""
    place.needs_card("compiling for a CPU takes minutes")
    import torch

    found, expected = (
        computed(_KIND, place.device, dtype=torch.bfloat16, torch_compile=is_compiled) for is_compiled in (True, False)
    )
    yield from _same("compiled", found, expected)


def preferences(place: Place) -> Iterator[Figure]:
    """Compare losses over preferences in float32 with those of the CPU."""
    from models import exact_products

    from sienn_ray.datasets.schema import RowKind

    for method, kind in (("dpo", RowKind.PREFERENCE), ("kto", RowKind.UNPAIRED_PREFERENCE)):
        with exact_products():
            found, expected = (
                computed(_KIND, device, method=method, row_kind=kind) for device in (place.device, "cpu")
            )
        for figure in compared("the CPU", found, expected):
            yield replace(figure, name=f"{method}: {figure.name}")


def _at_level(level: str, dropout: float, place: Place) -> Gradients:
    """Loss and gradients with parts of a layer computed again, whatever memory there is."""
    import torch
    from steps import LORA

    from sienn_ray.training import preparation
    from sienn_ray.training.recomputation import Recomputation

    choose = preparation._token_budget

    def budget(*args: Any, **options: Any) -> Any:
        return replace(choose(*args, **options), recomputation=Recomputation(level))

    lora = LORA.model_copy(update={"lora_dropout": dropout})
    with without((Part("sienn_ray.training.preparation", "_token_budget", budget),)):
        return computed(_KIND, place.device, dtype=torch.bfloat16, place=place, lora=lora, is_training=True)


def _same(name: str, found: Gradients, expected: Gradients) -> Iterator[Figure]:
    yield Figure(f"{name}: loss, relative difference", abs(found[0] / expected[0] - 1), at_most=_SAME_IN_BFLOAT16)
    missing = len(found[1].keys() ^ expected[1].keys())
    yield Figure(f"{name}: gradients that only one side has", missing, at_most=0)
    worst = max(relative({key: found[1][key]}, {key: value}) for key, value in expected[1].items())
    yield Figure(f"{name}: worst gradient, relative difference", worst, at_most=_SAME_IN_BFLOAT16)


CHECKS = (
    Check("training paths/float16", in_float16, 20.0),
    Check("training paths/shared beginning", shared_beginning, 20.0),
    Check("training paths/recomputation", recomputed, 20.0),
    Check("training paths/DPO and KTO", preferences, 20.0),
    Check("training paths/compiled", compiled, 60.0),
)
