"""Write safetensors files tensor by tensor.

The format is an 8-byte little-endian length, a JSON header with type, shape and place of every tensor, then their bytes
(safetensors, "Format"). The library writes only what is in memory as a whole; all that the header says is known before.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sienn_ray.export.sink import Sink
from sienn_ray.export.weights.checkpoint_reader import TensorSpec

if TYPE_CHECKING:
    import torch

_ALIGNMENT = 8
_WRITE_BYTES = 16 * 1024 * 1024


class TensorSource(Protocol):
    """Tensors by name."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Name, shape and type of each tensor."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """Read the tensor of a name."""
        ...


@dataclass(frozen=True)
class Shard:
    """One file of a model.

    Args:
        file_name: Its name.
        tensors: The tensors in it.
    """

    file_name: str
    tensors: Mapping[str, TensorSpec]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(spec.size_bytes for spec in self.tensors.values())

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return len(_header(self)) + self.size_bytes


def plan_shards(specs: Mapping[str, TensorSpec], max_bytes: int) -> list[Shard]:
    """Divide tensors into files of at most `max_bytes`, or one tensor, in their order; names as transformers has them.

    Args:
        specs: All tensors.
        max_bytes: Bytes of tensors in one file.
    """
    groups: list[dict[str, TensorSpec]] = [{}]
    filled = 0
    for name, spec in specs.items():
        if groups[-1] and filled + spec.size_bytes > max_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = spec
        filled += spec.size_bytes
    if len(groups) == 1:
        return [Shard("model.safetensors", groups[0])]
    return [
        Shard(f"model-{number:05}-of-{len(groups):05}.safetensors", group) for number, group in enumerate(groups, 1)
    ]


def shard_index(shards: list[Shard]) -> bytes:
    """The content of `model.safetensors.index.json`."""
    weight_map = {name: shard.file_name for shard in shards for name in shard.tensors}
    total_bytes = sum(shard.size_bytes for shard in shards)
    return json.dumps({"metadata": {"total_size": total_bytes}, "weight_map": weight_map}, indent=2).encode()


def write_shard(file: Sink, shard: Shard, source: TensorSource) -> Iterator[int]:
    """Write one file; yields the bytes of each tensor once it is written.

    Args:
        file: Where to.
        shard: What is in it.
        source: The tensors.
    """
    file.write(_header(shard))
    for name, spec in shard.tensors.items():
        write_array(file, source.read(name))
        yield spec.size_bytes


def write_array(file: Sink, tensor: torch.Tensor) -> None:
    """A tensor's bytes in their order, without a copy of the whole."""
    import torch

    flat: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    data = memoryview(flat)
    for start in range(0, len(data), _WRITE_BYTES):
        file.write(data[start : start + _WRITE_BYTES])


def _header(shard: Shard) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, spec in shard.tensors.items():
        start, end = end, end + spec.size_bytes
        entries[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
