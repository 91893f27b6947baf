"""Computations that go on with what they read from the device, whose reads are made together.

Each is a generator: it yields the tensors that it wants on the host, and gets their values as arrays. Several that run
together wait for the device once a round, and not once each.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import numpy.typing as npt
import torch

from sienn_ray.inference.transfers import fetch

_Result = TypeVar("_Result")
Arrays = list[npt.NDArray[Any]]
Reading = Generator[Sequence[torch.Tensor], Arrays, _Result]


def run_together(readings: Sequence[Reading[_Result]]) -> list[_Result]:
    """Run computations to their ends, and return their results.

    Example:
        >>> def double(number: int) -> Reading[int]:
        ...     (array,) = yield [torch.tensor([2 * number])]
        ...     return int(array[0])
        >>> run_together([double(3), double(4)])
        [6, 8]
    """
    results: dict[int, _Result] = {}
    answers: dict[int, Arrays | None] = dict.fromkeys(range(len(readings)))
    while answers:
        wanted: dict[int, Sequence[torch.Tensor]] = {}
        for number, answer in answers.items():
            try:
                wanted[number] = next(readings[number]) if answer is None else readings[number].send(answer)
            except StopIteration as end:
                results[number] = end.value
        arrays = iter(fetch([tensor for tensors in wanted.values() for tensor in tensors]))
        answers = {number: [next(arrays) for _ in tensors] for number, tensors in wanted.items()}
    return [results[number] for number in range(len(readings))]
