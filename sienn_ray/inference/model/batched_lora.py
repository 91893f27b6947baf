"""Batched LoRA: each token of a batch has an adapter of its own, or none.

The adapters in use are stacked in each linear layer. A step's tokens are sorted by adapter, so two batched products,
over as many rows for each adapter as the one with the most has, apply them all (the gathered product of Punica and
S-LoRA: Chen et al. 2023, arXiv:2310.18547; Sheng et al. 2023, arXiv:2311.03285). An adapter with far more tokens than
others, as in a prefill, has products of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_weights import LayerLora, LoraWeights
from sienn_ray.inference.model.packed_linear import PackedLinear, packed

# Ranks are rounded up to this, so that adapters of different ranks seldom ask for another layout.
_R_STEP = 8
# Rows of batched products, empty ones included, that cost no more than reading the adapters does.
_CHEAP_ROWS = 64


@dataclass
class Together:
    """The first tokens of a step, whose adapters are applied in batched products.

    Args:
        num_places: Number of places of the stacks, from the first one on.
        width: Rows of the batched product for each place.
        num_tokens: Number of tokens.
        sources: (places * width,) each row's token, any token for an empty row; None where rows and tokens are the
            same.
        rows: (tokens,) each token's row.
    """

    num_places: int
    width: int
    num_tokens: int
    sources: torch.Tensor | None
    rows: torch.Tensor
    _gathered: tuple[torch.Tensor, torch.Tensor] | None = None

    def gathered(self, x: torch.Tensor) -> torch.Tensor:
        """Gather each row's token of (tokens, in); kept, since layers side by side gather the same."""
        assert self.sources is not None  # nosec B101 # for the type checker
        if self._gathered is None or self._gathered[0] is not x:
            self._gathered = (x, x.index_select(0, self.sources))
        return self._gathered[1]


@dataclass(frozen=True)
class StepAdapters:
    """The places of the stacks that the tokens of a step use.

    Args:
        together: The first tokens; None is none.
        alone: Place, first token and end of each adapter with products of its own.
        places: (tokens,) each token's place, one behind the last for tokens without an adapter.
        only: The place of all tokens, where they share one.
    """

    together: Together | None
    alone: Sequence[tuple[int, int, int]]
    places: torch.Tensor
    only: int | None = None


class LoraLinear(torch.nn.Module):
    """A base model's linear layer with a stack of adapters on it."""

    def __init__(self, base: torch.nn.Module, state: LoraState, choices: LinearChoices | None) -> None:
        super().__init__()
        self.base = (None if choices is None else packed(base, choices)) or base
        # Called 200 times a step: without the module call, which looks for hooks.
        self._product = self.base.forward
        self._state = state
        self._is_conv = isinstance(self.base, Conv1D)
        self.a: torch.Tensor | None = None  # (places, in, r)
        self.b: torch.Tensor | None = None  # (places, r, out)
        self.gains: torch.Tensor | None = None  # (places + 1, out), ones where an adapter has none
        self._used: set[int] = set()

    @property
    def weight(self) -> torch.Tensor:
        """The base layer's weight, for architectures that read its dtype; packed layers have no values here."""
        weight: torch.Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The base layer's bias."""
        bias: torch.Tensor | None = self.base.bias  # type: ignore[assignment]
        return bias

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self.weight.shape
        return (columns, rows) if self._is_conv else (rows, columns)

    def matrix(self) -> torch.Tensor:
        """Return the weight as (out, in)."""
        if isinstance(self.base, PackedLinear):
            return self.base.matrix()
        return self.weight.t() if self._is_conv else self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute (..., in) to (..., out)."""
        y: torch.Tensor = self._product(x)
        step = self._state.step
        if step is None or not self._used or self.a is None or self.b is None:
            return y
        is_flat = x.dim() == 2
        tokens = x if is_flat else x.view(-1, x.shape[-1])
        flat = y if is_flat else y.view(-1, y.shape[-1])
        if self.gains is not None:
            gain = self.gains[step.places]
            flat = flat.mul_(gain) if self.bias is None else flat.sub_(self.bias).mul_(gain).add_(self.bias)
        if step.only is not None:
            if step.only in self._used:
                flat.addmm_(tokens.mm(self.a[step.only]), self.b[step.only])
            return y
        if step.together is not None:
            _add_together(flat, tokens, self.a, self.b, step.together)
        for place, start, end in step.alone:
            if place in self._used:
                flat[start:end].addmm_(tokens[start:end] @ self.a[place], self.b[place])
        return y

    def lay_out(self, num_places: int, r: int) -> None:
        """Allocate empty places for `num_places` adapters of up to this r."""
        out_size, in_size = self.shape
        self.a = self.weight.new_zeros((num_places, in_size, r))
        self.b = self.weight.new_zeros((num_places, r, out_size))
        self.gains = None
        self._used = set()

    def put(self, place: int, lora: LayerLora | None) -> None:
        """Copy an adapter's weights into a place, or empty it."""
        assert self.a is not None  # nosec B101 # for the type checker
        assert self.b is not None  # nosec B101 # for the type checker
        self.a[place].zero_()
        self.b[place].zero_()
        if self.gains is not None:
            self.gains[place] = 1.0
        if lora is None:
            self._used.discard(place)
            return
        self._used.add(place)
        r = lora.a.shape[0]
        self.a[place, :, :r] = lora.a.t()
        self.b[place, :r] = lora.b.t()
        if lora.gain is not None:
            if self.gains is None:
                self.gains = self.b.new_ones((self.b.shape[0] + 1, self.b.shape[2]))
            self.gains[place] = lora.gain


def _add_together(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, step: Together) -> None:
    """Add the adapters' products of (tokens, in) to (tokens, out).

    Each row has its own adapter only, so NaN, as a diverged adapter gives, stays in its rows.
    """
    shape = (step.num_places, step.width, -1)
    a, b = _first(a, step.num_places), _first(b, step.num_places)
    y = _first(y, step.num_tokens)
    if step.sources is None:
        y.view(shape).baddbmm_(_first(x, step.num_tokens).view(shape).bmm(a), b)
        return
    found = step.gathered(x).view(shape).bmm(a).bmm(b)
    y.add_(found.view(-1, y.shape[1]).index_select(0, step.rows))


def _first(tensor: torch.Tensor, num: int) -> torch.Tensor:
    """Return the first rows of a tensor, the tensor itself where it has no more."""
    return tensor if len(tensor) == num else tensor[:num]


class LoraState:
    """The current step's adapters, shared by all layers."""

    def __init__(self) -> None:
        self.step: StepAdapters | None = None


class LoraStack:
    """The stacked adapters in all layers of a base model.

    Args:
        model: The base model; its linear layers are replaced.
        choices: The fastest layouts of linear layers; None leaves them as they are.
    """

    def __init__(self, model: torch.nn.Module, choices: LinearChoices | None = None) -> None:
        self._state = LoraState()
        self._layers = dict(_replace_linear_layers(model, self._state, choices))
        self._places: dict[str, int] = {}
        self._num_places = 0
        self._r = 0

    @property
    def layers(self) -> Mapping[str, LoraLinear]:
        """The layers that adapters can change, by name."""
        return self._layers

    def use(self, rows: Sequence[tuple[str | None, int]], adapters: Mapping[str, LoraWeights]) -> list[int]:
        """Set the adapters of the next forward pass.

        Args:
            rows: An adapter's name or None, and its number of tokens in the step.
            adapters: Weights of the named adapters.

        Returns:
            Numbers of the rows, in the order that their tokens must have in the step.
        """
        counts = Counter[str]()
        for name, num in rows:
            if name is not None:
                counts[name] += num
        if not counts:
            self._state.step = None
            return list(range(len(rows)))
        self._place(list(counts), adapters)
        together, alone = _divided(counts)
        ranks = {name: (0, self._places[name]) for name in together}
        ranks |= {name: (1, self._places[name]) for name in alone}
        order = sorted(range(len(rows)), key=lambda number: ranks.get(rows[number][0] or "", (2, 0)))
        self._state.step = self._step(together, alone, counts, sum(num for _, num in rows))
        return order

    def _place(self, wanted: Sequence[str], adapters: Mapping[str, LoraWeights]) -> None:
        """Put every wanted adapter into a place; the places in use are the first ones."""
        r = -(-max(adapters[name].max_r for name in wanted) // _R_STEP) * _R_STEP
        if r > self._r or len(wanted) > self._num_places:
            self._lay_out(max(len(wanted), self._num_places), max(r, self._r))
        # Places up to the last one in use cost time in every product, so wanted adapters move to the front.
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
            layer.put(place, weights.layers.get(layer_name))

    def _lay_out(self, num_places: int, r: int) -> None:
        self._num_places, self._r = 1 << (num_places - 1).bit_length(), r
        self._places.clear()
        for layer in self._layers.values():
            layer.lay_out(self._num_places, r)

    def _step(
        self, together: Sequence[str], alone: Sequence[str], counts: Mapping[str, int], num_tokens: int
    ) -> StepAdapters:
        def by_place(names: Sequence[str]) -> list[tuple[int, int]]:
            return sorted((self._places[name], counts[name]) for name in names)

        places = [place for place, num in by_place(together) for _ in range(num)]
        end, spans = len(places), []
        for place, num in by_place(alone):
            spans.append((place, end, end + num))
            places += [place] * num
            end += num
        only = places[0] if end == num_tokens and len(counts) == 1 else None
        places += [self._num_places] * (num_tokens - end)
        return StepAdapters(self._together(by_place(together)), spans, self._tensor(places), only)

    def _together(self, counts: Sequence[tuple[int, int]]) -> Together | None:
        if not counts:
            return None
        width, num_places = max(num for _, num in counts), counts[-1][0] + 1
        rows = [place * width + number for place, num in counts for number in range(num)]
        num_tokens = len(rows)
        sources = None
        if num_tokens != num_places * width:
            filled = [0] * (num_places * width)
            for token, row in enumerate(rows):
                filled[row] = token
            sources = self._tensor(filled)
        return Together(num_places, width, num_tokens, sources, self._tensor(rows))

    def _tensor(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=next(iter(self._layers.values())).weight.device)

    def forget(self, name: str) -> None:
        """Forget the place of an evicted adapter; another one of this name has other weights."""
        self._places.pop(name, None)


def _divided(counts: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Divide adapters into those of batched products, and those with so many tokens that other rows would be empty."""
    names = sorted(counts, key=lambda name: counts[name])
    alone: list[str] = []
    while len(names) * counts[names[-1]] > max(_CHEAP_ROWS, 2 * sum(counts[name] for name in names)):
        alone.append(names.pop())
    return names, alone


def _replace_linear_layers(
    model: Any, state: LoraState, choices: LinearChoices | None
) -> Iterator[tuple[str, LoraLinear]]:
    """Replace every linear layer but the output head, which PEFT's `all-linear` leaves out as well."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
    for name in names:
        parent, _, own = name.rpartition(".")
        # Nothing else may hold the module, whose weight is there twice until it goes.
        layer = LoraLinear(model.get_submodule(name), state, choices)
        setattr(model.get_submodule(parent), own, layer)
        yield name, layer
