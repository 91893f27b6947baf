"""The adapters in use, stacked in all layers of a base model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch

from sienn_ray.inference.model.adapter_places import (
    AdapterPlaces,
    FlatPlaces,
    LayerPlaces,
    no_room,
    power_of_two,
    size_of_places,
)
from sienn_ray.inference.model.batched_lora import LoraLinear, LoraState, StepAdapters, Together
from sienn_ray.inference.model.flat_lora import R_STEP, flattened
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_layers import replace_linear_layers
from sienn_ray.inference.model.lora_weights import LoraWeights
from sienn_ray.inference.transfers import StepNumbers

# Rows of batched products, empty ones included, that cost no more than reading the adapters does, or than launching
# another product on a GPU.
_CHEAP_ROWS, _CHEAP_ROWS_LAUNCHED = 64, 1024


class LoraStack:
    """The stacked adapters in all layers of a base model.

    Args:
        model: The base model; its linear layers are replaced.
        choices: The fastest layouts of linear layers; None leaves them as they are.
        is_flat: Whether an adapter is one tensor and comes in one copy, as suits a GPU.
        max_bytes: Bytes of the stacks, gains aside; one adapter always has a place. None is no limit.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        choices: LinearChoices | None = None,
        *,
        is_flat: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._state = LoraState()
        self._layers = dict(replace_linear_layers(model, self._state, choices))
        self._all_places: AdapterPlaces = FlatPlaces(self._layers) if is_flat else LayerPlaces(self._layers)
        self._cheap_rows = _CHEAP_ROWS_LAUNCHED if is_flat else _CHEAP_ROWS
        self._places: dict[str, int] = {}
        self._num_places = 0
        self._r = 0
        self._begin: Callable[[], StepAdapters | None] = lambda: None
        #: Changes with what a forward pass calls: the memory of the places, and the layers that have adapters.
        self.version = 0

    @property
    def layers(self) -> Mapping[str, LoraLinear]:
        """The layers that adapters can change, by name."""
        return self._layers

    def readied(self, weights: LoraWeights) -> LoraWeights:
        """Return an adapter's weights as they are copied into a place; for any thread."""
        if not isinstance(self._all_places, FlatPlaces):
            return weights
        return flattened(weights, self._all_places.layout, next(iter(self._layers.values())).weight.dtype)

    def use(
        self, rows: Sequence[tuple[str | None, int]], adapters: Mapping[str, LoraWeights], numbers: StepNumbers
    ) -> list[int]:
        """Set the adapters of the next forward pass, which `begin` begins.

        Args:
            rows: An adapter's name or None, and its number of tokens in the step.
            adapters: Weights of the named adapters.
            numbers: Gets the tokens' places.

        Returns:
            Numbers of the rows, in the order that their tokens must have in the step.

        Raises:
            AdapterMemoryError: There is no room for all of them.
        """
        counts = _counted(rows)
        if not counts:
            self._begin = lambda: None
            return list(range(len(rows)))
        self._place(list(counts), adapters)
        together, alone = _divided(counts, self._cheap_rows)
        ranks = {name: (0, self._places[name]) for name in together}
        ranks |= {name: (1, self._places[name]) for name in alone}
        order = sorted(range(len(rows)), key=lambda number: ranks.get(rows[number][0] or "", (2, 0)))
        self._begin = self._step(together, alone, counts, sum(num for _, num in rows), numbers)
        return order

    def use_padded(
        self, names: Sequence[str | None], adapters: Mapping[str, LoraWeights], numbers: StepNumbers
    ) -> tuple[int, int] | None:
        """Set the adapters of a decoding step, in products of few sizes, that a captured graph can have.

        Args:
            names: Each token's adapter, or None.
            adapters: Weights of the named adapters.
            numbers: Gets the tokens' places.

        Returns:
            Places and rows of each, both powers of two; None where no token has an adapter.

        Raises:
            AdapterMemoryError: There is no room for all of them.
        """
        counts = _counted([(name, 1) for name in names])
        if not counts:
            self._begin = lambda: None
            return None
        self._place(list(counts), adapters)
        width = power_of_two(max(counts.values()))
        num_places = min(power_of_two(1 + max(self._places[name] for name in counts)), self._num_places)
        taken = Counter[int]()
        sources, rows = [0] * (num_places * width), [0] * len(names)
        places = [self._num_places if name is None else self._places[name] for name in names]
        for token, place in enumerate(places):
            if place < self._num_places:
                rows[token] = place * width + taken[place]
                sources[rows[token]] = token
                taken[place] += 1
        at = numbers.add(sources), numbers.add(rows), numbers.add(places)

        def begin() -> StepAdapters:
            own_places = numbers[at[2]]
            without = (own_places == self._num_places).unsqueeze(1)
            together = Together(num_places, width, len(names), numbers[at[0]], numbers[at[1]], without)
            return StepAdapters(together, (), own_places)

        self._begin = begin
        return num_places, width

    def begin(self) -> None:
        """Begin the forward pass, once the step's numbers are on the device."""
        self._state.step = self._begin()

    def has_room(self, ranks: Sequence[int]) -> bool:
        """Return whether adapters of these ranks can be in one step."""
        return len(ranks) <= 1 or self._fits(len(ranks), _rounded(max(ranks)))

    def _fits(self, num_places: int, r: int) -> bool:
        return self._max_bytes is None or self._all_places.bytes_of(num_places, r) <= self._max_bytes

    def _place(self, wanted: Sequence[str], adapters: Mapping[str, LoraWeights]) -> None:
        """Put every wanted adapter into a place; the places in use are the first ones."""
        r = _rounded(max(adapters[name].max_r for name in wanted))
        if r > self._r or len(wanted) > self._num_places:
            self._lay_out(wanted, r)
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
        self.version += self._all_places.put(place, weights)

    def _lay_out(self, wanted: Sequence[str], r: int) -> None:
        """Allocate places; where there is no memory, all are given up, and the next step begins with its own few."""
        new = [name for name in wanted if name not in self._places] or list(wanted)
        size = size_of_places(len(wanted), r, (self._num_places, self._r), self._fits)
        if size is None:
            raise no_room(new, len(wanted), r)
        self._places.clear()
        self.version += 1
        self._num_places, self._r = size
        try:
            self._all_places.lay_out(*size)
        except (torch.OutOfMemoryError, MemoryError) as error:
            self._num_places = self._r = 0
            raise no_room(new, len(wanted), r) from error

    def _step(
        self,
        together: Sequence[str],
        alone: Sequence[str],
        counts: Mapping[str, int],
        num_tokens: int,
        numbers: StepNumbers,
    ) -> Callable[[], StepAdapters]:
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
        first = self._together(by_place(together), numbers)
        at = numbers.add(places)
        return lambda: StepAdapters(None if first is None else first(), spans, numbers[at], only)

    def _together(self, counts: Sequence[tuple[int, int]], numbers: StepNumbers) -> Callable[[], Together] | None:
        if not counts:
            return None
        width, num_places = max(num for _, num in counts), counts[-1][0] + 1
        rows = [place * width + number for place, num in counts for number in range(num)]
        num_tokens = len(rows)
        sources_at = None
        if num_tokens != num_places * width:
            filled = [0] * (num_places * width)
            for token, row in enumerate(rows):
                filled[row] = token
            sources_at = numbers.add(filled)
        rows_at = numbers.add(rows)

        def together() -> Together:
            sources = None if sources_at is None else numbers[sources_at]
            return Together(num_places, width, num_tokens, sources, numbers[rows_at])

        return together

    def forget(self, name: str) -> None:
        """Forget the place of an evicted adapter; another one of this name has other weights."""
        self._places.pop(name, None)


def _rounded(r: int) -> int:
    return -(-r // R_STEP) * R_STEP


def _counted(rows: Sequence[tuple[str | None, int]]) -> Counter[str]:
    """Count the tokens of each adapter."""
    counts = Counter[str]()
    for name, num in rows:
        if name is not None:
            counts[name] += num
    return counts


def _divided(counts: Mapping[str, int], cheap_rows: int) -> tuple[list[str], list[str]]:
    """Divide adapters into those of batched products, and those with so many tokens that other rows would be empty."""
    names = sorted(counts, key=lambda name: counts[name])
    alone: list[str] = []
    while len(names) * counts[names[-1]] > max(cheap_rows, 2 * sum(counts[name] for name in names)):
        alone.append(names.pop())
    return names, alone
