"""LoRA where each token of a batch has an adapter of its own, or none.

The adapters that are in use stand side by side in one stack for each linear layer, so all tokens go through them in two
products: x with every A, everything that isn't the token's own set to zero, and the rest with every B. That is Punica's
and S-LoRA's gathered product (Chen et al. 2023, arXiv:2310.18547; Sheng et al. 2023, arXiv:2311.03285) for hardware on
which a plain product over a few adapters is cheaper than many small ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference.lora_weights import LayerLora, LoraWeights

# Ranks are rounded up to this, so that adapters of different ranks seldom ask for another layout.
_R_STEP = 8


@dataclass(frozen=True)
class TokenAdapters:
    """Which place of the stacks each token of a step uses.

    Args:
        others: (tokens, places * r) bool, where a token's own adapter isn't.
        places: (tokens,) numbers, one behind the last for tokens without an adapter.
        num_places: Places in use, from the first one on.
    """

    others: torch.Tensor
    places: torch.Tensor
    num_places: int


class LoraLinear(torch.nn.Module):
    """A base model's linear layer with a stack of adapters on it."""

    def __init__(self, base: torch.nn.Module, state: LoraState) -> None:
        super().__init__()
        self.base = base
        self._state = state
        self._is_conv = isinstance(base, Conv1D)
        self.a: torch.Tensor | None = None  # (places * r, in)
        self.b: torch.Tensor | None = None  # (places * r, out)
        self.gains: torch.Tensor | None = None  # (places + 1, out), ones where an adapter has none
        self._used: set[int] = set()

    @property
    def weight(self) -> torch.Tensor:
        """The base layer's, which some architectures look at."""
        weight: torch.Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The base layer's."""
        bias: torch.Tensor | None = self.base.bias  # type: ignore[assignment]
        return bias

    def matrix(self) -> torch.Tensor:
        """The weight as (out, in)."""
        return self.weight.t() if self._is_conv else self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        y: torch.Tensor = self.base(x)
        tokens = self._state.tokens
        if tokens is None or not self._used or self.a is None or self.b is None:
            return y
        end = tokens.others.shape[1]
        flat = y.view(-1, y.shape[-1])
        if self.gains is not None:
            gain = self.gains[tokens.places]
            flat = flat.mul_(gain) if self.bias is None else flat.sub_(self.bias).mul_(gain).add_(self.bias)
        down = F.linear(x.view(-1, x.shape[-1]), self.a[:end])  # (tokens, places * r)
        # Filled, not multiplied by zero: of an infinite number, as a diverged adapter gives, that wouldn't be zero.
        down.masked_fill_(tokens.others, 0.0)
        flat.addmm_(down, self.b[:end])
        return y

    def lay_out(self, num_places: int, r: int) -> None:
        """Make room, empty, for so many adapters of up to this r."""
        weight = self.matrix()
        self.a = weight.new_zeros((num_places * r, weight.shape[1]))
        self.b = weight.new_zeros((num_places * r, weight.shape[0]))
        self.gains = None
        self._used = set()

    def put(self, place: int, r: int, lora: LayerLora | None) -> None:
        """Put an adapter's weights, or none, into a place."""
        assert self.a is not None  # noqa: S101
        assert self.b is not None  # noqa: S101
        here = slice(place * r, (place + 1) * r)
        if lora is None:
            self._used.discard(place)
        else:
            self._used.add(place)
            self.a[here].zero_()[: lora.a.shape[0]] = lora.a
            self.b[here].zero_()[: lora.a.shape[0]] = lora.b.t()
        if lora is None or lora.gain is None:
            if self.gains is not None:
                self.gains[place] = 1.0
            if lora is None:
                self.a[here].zero_()
                self.b[here].zero_()
            return
        if self.gains is None:
            self.gains = self.a.new_ones((self.a.shape[0] // r + 1, self.b.shape[1]))
        self.gains[place] = lora.gain


class LoraState:
    """What all layers look at in a step."""

    def __init__(self) -> None:
        self.tokens: TokenAdapters | None = None


class LoraStack:
    """The adapters in use, in all layers of a base model.

    Args:
        model: The base model; its linear layers are replaced.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._state = LoraState()
        self._layers = dict(_replace_linear_layers(model, self._state))
        self._places: dict[str, int] = {}
        self._num_places = 0
        self._r = 0

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Weights, (out, in), of the layers that adapters can change."""
        return {name: layer.matrix() for name, layer in self._layers.items()}

    def use(self, tokens: Sequence[tuple[str | None, int]], adapters: Mapping[str, LoraWeights]) -> None:
        """Set what the next forward pass applies.

        Args:
            tokens: An adapter's name or None, and how many tokens of the step it is for, in the step's order.
            adapters: The weights of those that are named.
        """
        wanted = list(dict.fromkeys(name for name, _ in tokens if name is not None))
        if not wanted:
            self._state.tokens = None
            return
        self._place(wanted, adapters)
        self._state.tokens = self._token_adapters(tokens)

    def _place(self, wanted: Sequence[str], adapters: Mapping[str, LoraWeights]) -> None:
        """Have every wanted adapter in a place, the places in use being the first ones."""
        r = -(-max(adapters[name].max_r for name in wanted) // _R_STEP) * _R_STEP
        if r > self._r or len(wanted) > self._num_places:
            self._lay_out(max(len(wanted), self._num_places), max(r, self._r))
        # Places behind are a cost in every product, so one that is wanted moves to the front where there is room.
        limit = len(wanted)
        kept = {self._places[name] for name in wanted if self._places.get(name, limit) < limit}
        free = (place for place in range(limit) if place not in kept)
        for name in wanted:
            if self._places.get(name, limit) >= limit:
                self._put(name, adapters[name], next(free))

    def _put(self, name: str, weights: LoraWeights, place: int) -> None:
        for other in [other for other, taken in self._places.items() if taken == place]:
            del self._places[other]
        self._places[name] = place
        for layer_name, layer in self._layers.items():
            layer.put(place, self._r, weights.layers.get(layer_name))

    def _lay_out(self, num_places: int, r: int) -> None:
        self._num_places, self._r = 1 << (num_places - 1).bit_length(), r
        self._places.clear()
        for layer in self._layers.values():
            layer.lay_out(self._num_places, r)

    def _token_adapters(self, tokens: Sequence[tuple[str | None, int]]) -> TokenAdapters:
        like = next(iter(self._layers.values())).weight
        used = [self._places[name] for name, _ in tokens if name is not None]
        num_places = max(used) + 1
        places = torch.tensor([-1 if name is None else self._places[name] for name, _ in tokens], device=like.device)
        places = places.repeat_interleave(torch.tensor([num for _, num in tokens], device=like.device))
        others = places.unsqueeze(1) != torch.arange(num_places, device=like.device)
        return TokenAdapters(
            others.repeat_interleave(self._r, dim=1), places.where(places >= 0, self._num_places), num_places
        )

    def forget(self, name: str) -> None:
        """An adapter has been unloaded; another of this name would be another one."""
        self._places.pop(name, None)


def _replace_linear_layers(model: Any, state: LoraState) -> Iterator[tuple[str, LoraLinear]]:
    """Every linear layer but the output head, which PEFT's `all-linear` leaves alone as well."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
    for name, module in found:
        parent, _, own = name.rpartition(".")
        layer = LoraLinear(module, state)
        setattr(model.get_submodule(parent), own, layer)
        yield name, layer
