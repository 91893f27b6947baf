"""Keys and values of all requests, in the layouts that CPUs and GPUs read best."""

from __future__ import annotations

import math

import numpy as np
import torch

# Far above the keys of any trained model. Times a query of the same size, no score overflows.
_LARGEST_KEY = 1e15


class KvCache:
    """Keys and values of all requests, (1, key heads, slots, head size) for each layer, made at its first write.

    A request's keys in neighbouring slots are one strided view for each head, which a CPU's attention reads in place.

    Args:
        num_slots: Number of tokens that fit in.
    """

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers so far."""
        return sum(tensor.nbytes for pair in self._layers.values() for tensor in pair)

    @property
    def mask_like(self) -> torch.Tensor:
        """A tensor of a mask's dtype and device."""
        keys, _ = next(iter(self._layers.values()))
        return keys

    def write(
        self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (1, key heads, tokens, head size) into a layer's slots; return the whole layer's keys and values.

        See `storable`.
        """
        if layer not in self._layers:
            self._layers[layer] = (self._room(key), self._room(value))
        keys, values = self._layers[layer]
        key, value = storable(key, value)
        keys.index_copy_(2, slots, key)
        values.index_copy_(2, slots, value)
        return keys, values

    def _room(self, like: torch.Tensor) -> torch.Tensor:
        shape = (1, like.shape[1], self.num_slots, like.shape[3])
        # NumPy's zeros take memory only where they are written to.
        return torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8)).view(like.dtype).view(shape)


class BlockKvCache:
    """Keys and values of all requests, (blocks, block tokens, key heads, head size) for each layer.

    A block of all heads is one piece, so that a GPU gathers the blocks of any requests in one launch. Behind the blocks
    of requests there is one that nobody reads, for the rows that fill up a step: `spare`.

    Args:
        num_blocks: Blocks for requests.
        block_tokens: Tokens in a block.
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def num_slots(self) -> int:
        """Number of tokens that fit in, those of the spare block included."""
        return (self.num_blocks + 1) * self.block_tokens

    @property
    def spare(self) -> int:
        """Number of the block for rows that fill up a step."""
        return self.num_blocks

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers so far."""
        return sum(tensor.nbytes for pair in self._layers.values() for tensor in pair)

    def write(
        self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (tokens, key heads, head size) into a layer's slots; return the whole layer's keys and values.

        See `storable`.
        """
        if layer not in self._layers:
            self._layers[layer] = (self._room(key), self._room(value))
        keys, values = self._layers[layer]
        key, value = storable(key, value)
        keys.flatten(0, 1).index_copy_(0, slots, key)
        values.flatten(0, 1).index_copy_(0, slots, value)
        return keys, values

    def allocate_as(self, other: BlockKvCache) -> None:
        """Allocate the layers that another cache has, so that a shortage of memory shows before any request."""
        for layer, (keys, values) in other._layers.items():
            self._layers[layer] = (self._room(keys.flatten(0, 1)), self._room(values.flatten(0, 1)))

    def _room(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros((self.num_blocks + 1, self.block_tokens, *like.shape[1:]))


def storable(key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make keys and values such that other requests may read them and mask them by a factor of zero.

    So everything in the cache is finite, and keys are small enough for finite scores, since not every kernel masks a
    NaN score. A NaN value becomes the largest number there is, which overflows in the products that follow, as the NaN
    would have, in its own request only. So do the values of a NaN key.

    Args:
        key: (..., head size).
        value: Likewise.
    """
    limit = min(_LARGEST_KEY, torch.finfo(key.dtype).max)
    kept = torch.nan_to_num(key, nan=limit).clamp_(-limit, limit)
    return kept, finite(value + key.sum(dim=-1, keepdim=True).mul_(0.0))


def finite(tensor: torch.Tensor) -> torch.Tensor:
    """Replace NaN and infinities by the largest numbers there are."""
    return torch.nan_to_num(tensor, nan=torch.finfo(tensor.dtype).max)
