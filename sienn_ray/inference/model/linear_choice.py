"""Autotuning: the fastest layout and product for each shape of linear layer, measured once per machine.

No rule holds for all CPUs: packed by MKL, a decoding step of 16 rows is the fastest on an Intel Xeon and takes twice as
long as packed by oneDNN on an AMD EPYC (docs/decisions/0035). So an engine measures all layouts at its start, on
weights that are as cold as in a step, and keeps the results in a file: later engines start at once, and compute as this
one does.
"""

from __future__ import annotations

import json
import logging
import platform
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.inference.model.linear_layouts import Layout, Product, available_layouts

logger = logging.getLogger(__name__)

# Numbers of rows that are measured, each for those from half to twice as many: a request alone, a few, a batch, and
# steps with a chunk of a prefill.
MEASURED_ROWS = (1, 4, 16, 64, 256)
# More rows are computed in pieces of this many.
MAX_ROWS = MEASURED_ROWS[-1]
# Smaller weights (values) are in a CPU's cache whatever is done, and a product is over before it could be shared out.
_SMALL = 1 << 16
# Measured together, weights are larger than a CPU's caches; but no longer than this many multiplications take.
_COLD_BYTES = 32 << 20
_MAX_PRODUCTS = 1 << 29
_TRIES = 3
# For all shapes of a start; what is left is measured at the next one.
_BUDGET_S = 6.0
_TRIED_ROWS = (1, 2, 3, 5, 8, 13, 16, 31, 32, 64, 100, MAX_ROWS)
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Choice:
    """The layout and the products of linear layers of one shape.

    Args:
        layout: Name of a layout.
        products: Names of its products, for each of `MEASURED_ROWS`.
    """

    layout: str
    products: tuple[str, ...]

    def products_of(self, layout: Layout) -> tuple[Product, ...]:
        """Return the products by `num_rows.bit_length()`, which doubles from one to the next."""
        by_rows = [layout.products[name] for name in self.products]
        return tuple(by_rows[min(length // 2, len(by_rows) - 1)] for length in _BIT_LENGTHS)


_BIT_LENGTHS = range(MAX_ROWS.bit_length() + 1)


class LinearChoices:
    """The choices for all shapes that a base model has.

    Args:
        path: File of measured choices; None measures nothing.
        budget_s: Seconds that measuring may take.
    """

    def __init__(self, path: Path | None = None, budget_s: float = _BUDGET_S) -> None:
        self._path = path
        self._left_s = budget_s
        self._machine = f"{_cpu_model()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
        self._found = {} if path is None else _read(path).get(self._machine, {})

    def choose(self, out_features: int, in_features: int) -> Choice | None:
        """Return the choice for (out, in) float32, or None where layers are best as they are."""
        choice = self._known_or_measured(out_features, in_features)
        if choice is None or not _holds(choice, out_features, in_features, torch.get_num_threads()):
            return None
        return choice

    def _known_or_measured(self, out_features: int, in_features: int) -> Choice | None:
        name = f"{out_features} x {in_features}"
        if name in self._found:
            return self._found[name]
        if self._path is None or out_features * in_features < _SMALL or self._left_s <= 0:
            return _DEFAULT if _DEFAULT.layout in available_layouts() else None
        began = time.monotonic()
        choice = measure(out_features, in_features)
        self._left_s -= time.monotonic() - began
        self._found[name] = choice
        _write(self._path, self._machine, self._found)
        return choice


_DEFAULT = Choice("mkl", ("packed",) * len(MEASURED_ROWS))


@torch.inference_mode()
def measure(out_features: int, in_features: int) -> Choice:
    """Choose the layout that, with its best product for each number of rows, loses least to the best of all."""
    num_weights = -(-_COLD_BYTES // (4 * out_features * in_features))
    weights = [torch.randn((out_features, in_features)) for _ in range(num_weights)]
    best: dict[str, tuple[list[str], list[float]]] = {}
    for name, kind in available_layouts().items():
        layouts = [kind(weight, torch.get_num_threads()) for weight in weights]
        names, seconds = [], []
        for num_rows in MEASURED_ROWS:
            times = {product: _seconds(layouts, product, num_rows, in_features) for product in layouts[0].products}
            names.append(min(times, key=times.__getitem__))
            seconds.append(times[names[-1]])
        best[name] = (names, seconds)
        del layouts
    fastest = [min(seconds[number] for _, seconds in best.values()) for number in range(len(MEASURED_ROWS))]

    def loss(name: str) -> float:
        return sum(own / least for own, least in zip(best[name][1], fastest, strict=True))

    chosen = min(best, key=loss)
    shares = {name: [round(own / least, 2) for own, least in zip(best[name][1], fastest, strict=True)] for name in best}
    logger.info("%d x %d: %s; time over the fastest's: %s", out_features, in_features, chosen, shares)
    return Choice(chosen, tuple(best[chosen][0]))


def _seconds(layouts: Sequence[Layout], name: str, num_rows: int, in_features: int) -> float:
    """Seconds of one product, the best of a few tries over weights that aren't in a cache."""
    x = torch.randn((num_rows, in_features))
    size = layouts[0].weight.shape[0] * in_features
    products = [layout.products[name] for layout in layouts[: max(1, _MAX_PRODUCTS // (size * num_rows))]]
    tries = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        for product in products:
            product(x)
        tries.append((time.perf_counter() - began) / len(products))
    return min(tries)


@cache
def _holds(choice: Choice, out_features: int, in_features: int, num_threads: int) -> bool:
    """Return whether a choice gives right products, for other numbers of rows than a weight is packed for too."""
    kind = available_layouts().get(choice.layout)
    if kind is None:
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((out_features, in_features), generator=generator)
    layout = kind(weight, num_threads)
    if not set(choice.products) <= set(layout.products):
        return False
    products = choice.products_of(layout)
    for num_rows in _TRIED_ROWS:
        x = torch.randn((num_rows, in_features), generator=generator)
        expected = F.linear(x, weight)
        found = products[num_rows.bit_length()](x)
        if not torch.allclose(found, expected, rtol=0.0, atol=_TOLERANCE * float(expected.abs().max())):
            logger.warning(
                "weights of %d x %d give wrong products here as '%s'", out_features, in_features, choice.layout
            )
            return False
    return True


def _cpu_model() -> str:
    """Return the CPU's own name, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def _read(path: Path) -> dict[str, dict[str, Choice]]:
    """Return the file's choices by machine and shape; a file that can't be read is as good as none."""
    try:
        kept = json.loads(path.read_text())
        return {
            machine: {shape: Choice(each["layout"], tuple(each["products"])) for shape, each in shapes.items()}
            for machine, shapes in kept.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s can't be read and is made anew: %s", path, error)
        return {}


def _write(path: Path, machine: str, found: Mapping[str, Choice]) -> None:
    kept = {**_read(path)}
    kept[machine] = {**kept.get(machine, {}), **found}
    content = {
        name: {shape: {"layout": each.layout, "products": each.products} for shape, each in shapes.items()}
        for name, shapes in kept.items()
    }
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content, indent=2) + "\n")
        partial.replace(path)
    except OSError as error:  # an engine works without, and measures again
        logger.warning("%s can't be written: %s", path, error)
