"""Batches as the base model takes them, and their way to a GPU: one buffer, one copy, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

# Of a tensor's place in the buffer: that of the largest elements, twice.
_ALIGNMENT_BYTES = 16


@dataclass(frozen=True)
class Batch:
    """Rows as the base model takes them, and what has to be predicted.

    Args:
        inputs: Arguments of the base model's forward pass. Hidden states come back as (batch, tokens, hidden).
        source_positions: (targets,) int64; index of the hidden state that predicts each target, among batch x tokens.
        targets: (targets,) int64; the tokens that the loss counts, row after row.
        num_targets: (rows,) int64; how many of them each row has.
        targets_per_row: The same as numbers.
        num_tokens: Tokens of the rows, without padding; a shared piece counts for each of its rows.
        is_desirable: (examples,) bool; labels of answers that aren't compared with another one; None of other rows.
    """

    inputs: dict[str, Any]
    source_positions: torch.Tensor
    targets: torch.Tensor
    num_targets: torch.Tensor
    targets_per_row: tuple[int, ...]
    num_tokens: int
    is_desirable: torch.Tensor | None = None

    @property
    def num_computed_tokens(self) -> int:
        """Tokens that the base model computes: padding counts, and what rows share counts once."""
        return int(self.inputs["input_ids"].numel())

    def to(self, device: torch.device) -> Batch:
        """Return the same with its tensors on a device."""
        return StagedBatch(self, device).placed()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return its tensors by name; those of `inputs` come first."""
        found = {name: value for name, value in self.inputs.items() if isinstance(value, torch.Tensor)}
        own = {name: getattr(self, name) for name in _OWN_TENSORS}
        return {**found, **{name: value for name, value in own.items() if value is not None}}

    def with_tensors(self, tensors: Mapping[str, torch.Tensor]) -> Batch:
        """Return the same with other tensors, by the names of `tensors`."""
        inputs = {name: tensors.get(name, value) for name, value in self.inputs.items()}
        own: dict[str, Any] = {name: tensors[name] for name in _OWN_TENSORS if name in tensors}
        return replace(self, inputs=inputs, **own)


_OWN_TENSORS = ("source_positions", "targets", "num_targets", "is_desirable")


class StagedBatch:
    """A batch on its way to a device: for a GPU in one page-locked buffer, which is filled when this is made.

    Args:
        batch: With tensors of the CPU.
        device: Where it is to go.

    Attributes:
        batch: As it was given.
    """

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self.batch = batch
        self._device = device
        self._tensors = {} if device.type == "cpu" else batch.tensors()
        self._places: dict[str, slice] = {}
        start = 0
        for name, tensor in self._tensors.items():
            self._places[name] = slice(start, start + tensor.nbytes)
            start += -(-tensor.nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        if self._tensors:
            self._buffer = _host_buffer(start, device)
            for name, view in self._views(self._buffer).items():
                view.copy_(self._tensors[name])

    def placed(self) -> Batch:
        """Return the batch on its device; the copy is queued there, before whatever is queued next."""
        if not self._tensors:
            return self.batch
        return self.batch.with_tensors(self._views(self._buffer.to(self._device, non_blocking=True)))

    def _views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            name: buffer[place].view(self._tensors[name].dtype).view(self._tensors[name].shape)
            for name, place in self._places.items()
        }


def _host_buffer(num_bytes: int, device: torch.device) -> torch.Tensor:
    if device.type != "cuda":
        return torch.empty(num_bytes, dtype=torch.uint8)
    # A thread's device is the first one until it is told: locking pages would open a context there.
    if device.index is not None and torch.cuda.current_device() != device.index:
        torch.cuda.set_device(device)
    try:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:  # no more pages may be locked; then the copy waits
        return torch.empty(num_bytes, dtype=torch.uint8)
