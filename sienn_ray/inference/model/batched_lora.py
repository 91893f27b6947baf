"""Batched LoRA: each token of a batch has an adapter of its own, or none.

The adapters in use are stacked in each linear layer. A step's tokens are sorted by adapter, so two batched products,
over as many rows for each adapter as the one with the most has, apply them all (the gathered product of Punica and
S-LoRA: Chen et al. 2023, arXiv:2310.18547; Sheng et al. 2023, arXiv:2311.03285). An adapter with far more tokens than
others, as in a prefill, has products of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_weights import LayerLora
from sienn_ray.inference.model.packed_linear import PackedLinear, packed


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
        without: (tokens, 1) the tokens without an adapter, where some of them are among these.
    """

    num_places: int
    width: int
    num_tokens: int
    sources: torch.Tensor | None
    rows: torch.Tensor
    without: torch.Tensor | None = None
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
        self.drop()
        self.a = self.weight.new_zeros((num_places, in_size, r))
        self.b = self.weight.new_zeros((num_places, r, out_size))

    def drop(self) -> None:
        """Free all places."""
        self.a = self.b = self.gains = None
        self._used = set()

    def put(self, place: int, lora: LayerLora | None) -> None:
        """Copy an adapter's weights into a place, or empty it."""
        assert self.a is not None  # nosec B101 # for the type checker
        assert self.b is not None  # nosec B101 # for the type checker
        self.a[place].zero_()
        self.b[place].zero_()
        if self.gains is not None:
            self.gains[place] = 1.0
        self.mark(place, is_used=lora is not None)
        if lora is None:
            return
        r = lora.a.shape[0]
        self.a[place, :, :r] = lora.a.t()
        self.b[place, :r] = lora.b.t()
        if lora.gain is not None:
            if self.gains is None:
                self.gains = self.b.new_ones((self.b.shape[0] + 1, self.b.shape[2]))
            self.gains[place] = lora.gain

    def mark(self, place: int, *, is_used: bool) -> bool:
        """Note whether a place has weights for this layer; return whether it is the layer's first one."""
        is_first = is_used and not self._used
        (self._used.add if is_used else self._used.discard)(place)
        return is_first


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
    found = found.view(-1, y.shape[1]).index_select(0, step.rows)
    y.add_(found if step.without is None else found.masked_fill_(step.without, 0.0))


def _first(tensor: torch.Tensor, num: int) -> torch.Tensor:
    """Return the first rows of a tensor, the tensor itself where it has no more."""
    return tensor if len(tensor) == num else tensor[:num]


class LoraState:
    """The current step's adapters, shared by all layers."""

    def __init__(self) -> None:
        self.step: StepAdapters | None = None
