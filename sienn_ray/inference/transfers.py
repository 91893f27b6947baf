"""Copies between the host and the device that computes: few, and those to the device without waiting.

A copy from pageable memory waits until the device has done everything before it, as does every number that is read from
the device. So what a step needs goes there in one copy from pinned memory, and what is wanted of it comes in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the host to the device, without waiting; on a CPU it is the tensor itself."""
    if device.type == "cpu":
        return tensor
    return pinned(tensor).to(device, non_blocking=True)


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor into page-locked memory where there is a GPU to copy it to; else it is the tensor itself."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def fetch(tensors: Sequence[torch.Tensor], *, is_packed: bool | None = None) -> list[npt.NDArray[Any]]:
    """Copy tensors of one device to the host, in one copy; on a CPU they are read where they are.

    What is on a CPU may change afterwards, and so may what is read of it.

    Args:
        tensors: Numbers of types that NumPy has.
        is_packed: Whether to copy them as one; None is where they aren't on a CPU.
    """
    if is_packed is None:
        is_packed = any(tensor.device.type != "cpu" for tensor in tensors)
    if not is_packed:
        return [tensor.numpy() for tensor in tensors]
    packed = torch.cat([_bytes(tensor) for tensor in tensors]).cpu().numpy()
    found: list[npt.NDArray[Any]] = []
    start = 0
    for tensor in tensors:
        dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        found.append(packed[start : start + tensor.nbytes].view(dtype).reshape(tensor.shape))
        start += tensor.nbytes
    return found


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """View a tensor's numbers as bytes; copied where they lie apart."""
    # A tensor of one number may keep any stride, which a view as bytes refuses.
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


class StepNumbers:
    """Lists of whole numbers that a step needs on its device.

    Args:
        device: Where they go.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lists: list[Sequence[int]] = []
        self._tensors: list[torch.Tensor] = []

    def add(self, numbers: Sequence[int]) -> int:
        """Add a list; return its place among the tensors."""
        self._lists.append(numbers)
        return len(self._lists) - 1

    @property
    def lengths(self) -> list[int]:
        """Numbers in each list."""
        return [len(numbers) for numbers in self._lists]

    def send(self, into: torch.Tensor | None = None) -> None:
        """Copy all lists to the device: in one copy to a GPU, and one by one, which is quicker there, on a CPU.

        Args:
            into: (numbers of all lists,) int64 on the device, to be overwritten; None allocates.
        """
        if self._device.type == "cpu" and into is None:
            self._tensors = [torch.tensor(numbers, dtype=torch.long) for numbers in self._lists]
            return
        # NumPy reads a list of many numbers quicker than torch.
        host = torch.from_numpy(np.fromiter(chain.from_iterable(self._lists), np.int64))
        if into is None:
            into = to_device(host, self._device)
        else:
            into.copy_(pinned(host), non_blocking=True)
        self._tensors = list(torch.split(into, self.lengths))

    def __getitem__(self, place: int) -> torch.Tensor:
        return self._tensors[place]
