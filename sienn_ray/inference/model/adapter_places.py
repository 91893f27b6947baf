"""The memory of stacked adapters: places that adapters are copied into, in the layers of a base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from sienn_ray.errors import AdapterMemoryError
from sienn_ray.inference.model.batched_lora import LoraLinear
from sienn_ray.inference.model.flat_lora import FlatLayout, flat_lora
from sienn_ray.inference.model.lora_weights import LoraWeights


def no_room(names: Sequence[str], num_places: int, r: int) -> AdapterMemoryError:
    """Return the error for adapters that a step needs and the device has no memory for.

    Args:
        names: Names of the adapters that there is no room for.
        num_places: Adapters that there was to be room for.
        r: Their largest rank.
    """
    return AdapterMemoryError(
        f"the device has no memory for {num_places} adapters of r={r} in one batch; ask again later, or lower "
        "SIENN_ENGINE_MAX_BATCH or SIENN_ENGINE_KV_CACHE_BYTES",
        tuple(names),
    )


class AdapterPlaces(Protocol):
    """Places for adapters in all layers."""

    def lay_out(self, num_places: int, r: int) -> None:
        """Allocate empty places for adapters of up to this r; where memory is short, there are none afterwards.

        Raises:
            OutOfMemoryError: PyTorch's.
        """
        ...

    def bytes_of(self, num_places: int, r: int) -> int:
        """Return the bytes of so many places, gains aside."""
        ...

    def put(self, place: int, weights: LoraWeights) -> bool:
        """Copy an adapter into a place; return whether that changed which layers have adapters, or gains."""
        ...


def size_of_places(
    num: int, r: int, before: tuple[int, int], fits: Callable[[int, int], bool]
) -> tuple[int, int] | None:
    """Choose a number of places and their r, so that they seldom have to be laid out anew; None where none fits.

    Args:
        num: Adapters that are wanted together.
        r: Their largest rank.
        before: Places that there are, and their r.
        fits: Whether there is room for so many places of an r; one place always has room.
    """
    tries = (power_of_two(max(num, before[0])), max(r, before[1])), (power_of_two(num), r), (num, r)
    return next((each for each in tries if each[0] == 1 or fits(*each)), None)


def power_of_two(number: int) -> int:
    """Return the smallest power of two that isn't below a number."""
    return 1 << (number - 1).bit_length()


class LayerPlaces:
    """Places that each layer has tensors of its own for, as a CPU's products are the quickest.

    Args:
        layers: The layers by name.
    """

    def __init__(self, layers: Mapping[str, LoraLinear]) -> None:
        self._layers = layers

    def lay_out(self, num_places: int, r: int) -> None:
        """See `AdapterPlaces.lay_out`."""
        for layer in self._layers.values():
            layer.drop()
        try:
            for layer in self._layers.values():
                layer.lay_out(num_places, r)
        except BaseException:
            for layer in self._layers.values():
                layer.drop()
            raise

    def bytes_of(self, num_places: int, r: int) -> int:
        """See `AdapterPlaces.bytes_of`."""
        return sum(num_places * r * sum(layer.shape) * layer.weight.itemsize for layer in self._layers.values())

    def put(self, place: int, weights: LoraWeights) -> bool:
        """See `AdapterPlaces.put`."""
        for name, layer in self._layers.items():
            layer.put(place, weights.layers.get(name))
        return True


class FlatPlaces:
    """Places that are one tensor for all layers, so that an adapter comes to a GPU in one copy.

    Args:
        layers: The layers by name.
    """

    def __init__(self, layers: Mapping[str, LoraLinear]) -> None:
        self._layers = layers
        self.layout = FlatLayout({name: layer.shape for name, layer in layers.items()})
        self._weights: torch.Tensor | None = None  # (places, r, columns)
        self._gains: torch.Tensor | None = None  # (places + 1, outputs), ones where an adapter has none

    @property
    def size_bytes(self) -> int:
        """Bytes of all places."""
        return sum(each.nbytes for each in (self._weights, self._gains) if each is not None)

    def lay_out(self, num_places: int, r: int) -> None:
        """See `AdapterPlaces.lay_out`."""
        for layer in self._layers.values():
            layer.drop()
        self._weights = self._gains = None
        like = next(iter(self._layers.values())).weight
        self._weights = like.new_zeros((num_places, r, self.layout.num_columns))
        for name, layer in self._layers.items():
            a, b = self.layout.parts(self._weights, name)
            layer.a, layer.b = a.transpose(1, 2), b

    def bytes_of(self, num_places: int, r: int) -> int:
        """See `AdapterPlaces.bytes_of`."""
        return num_places * r * self.layout.num_columns * next(iter(self._layers.values())).weight.itemsize

    def put(self, place: int, weights: LoraWeights) -> bool:
        """See `AdapterPlaces.put`."""
        assert self._weights is not None  # nosec B101 # for the type checker
        found = weights.flat or flat_lora(weights, self.layout, self._weights.dtype)
        r = found.weights.shape[0]
        self._weights[place, :r].copy_(found.weights, non_blocking=True)
        if r < self._weights.shape[1]:
            self._weights[place, r:].zero_()
        has_new_gains = found.gains is not None and self._gains is None
        if has_new_gains:
            self._gains = self._weights.new_ones((self._weights.shape[0] + 1, self.layout.num_outputs))
            for name, layer in self._layers.items():
                layer.gains = self.layout.gains(self._gains, name)
        if self._gains is not None:
            own = self._gains[place]
            own.fill_(1.0) if found.gains is None else own.copy_(found.gains, non_blocking=True)
        has_new_layers = False
        for name, layer in self._layers.items():
            has_new_layers |= layer.mark(place, is_used=name in weights.layers)
        return has_new_gains or has_new_layers
