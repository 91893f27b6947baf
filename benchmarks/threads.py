"""What the products of a decoding step take, by which threads of a process have OpenMP workers.

The 210 linear layers of SmolLM2-135M (30 layers of seven projections), as `F.linear` and packed by MKL, and as many
products with an adapter's A (r 16), in each of these ways, every one in a process of its own, in rounds; medians are
printed in milliseconds, and how often a thread of the process went to sleep in one pass over everything.

    python benchmarks/threads.py [--rounds 3] [--rows 1 16]

- first: in the process's first thread.
- second team: in another thread, after the first one has computed as well, as when a model is loaded in one thread and
  computes in another.
- one OpenMP thread: in such a thread, with `torch.set_num_threads(1)` in it.
- active: as second team, with OMP_WAIT_POLICY=active.
- only team: in another thread, the first one having no team. So does our engine (`sienn_ray/compute_threads.py`).
- Intel's OpenMP: as second team, with `libiomp5.so` loaded first.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

INTEL_OPENMP = "intel-openmp==2024.2.1"
WAYS = ("first", "second team", "one OpenMP thread", "active", "only team", "Intel's OpenMP")
SHAPES = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)] * 30
LORA_R = 16
NARROW, PACKED_FOR_NARROW, PACKED_FOR = 512, 64, 256
PASSES = 15


def main() -> None:
    options = parse_options()
    if options.way:
        print(json.dumps(measured_in(options.way, options.rows)))
        return
    library = intel_openmp()
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.rounds):
        for way in WAYS:
            print(f"round {number + 1}: {way}", file=sys.stderr)
            rounds.setdefault(way, []).append(run(way, options.rows, library))
    print(f"medians of {options.rounds} rounds, ms; threads going to sleep in a pass")
    columns = list(rounds[WAYS[0]][0])
    print(f"{'':20}" + "".join(f"{column:>18}" for column in columns))
    for way, found in rounds.items():
        print(f"{way:20}" + "".join(f"{statistics.median(each[column] for each in found):18.1f}" for column in columns))


def run(way: str, rows: Sequence[int], library: Path) -> dict[str, Any]:
    variables = {"OMP_WAIT_POLICY": "active"} if way == "active" else {}
    command = [sys.executable, __file__, "--way", way, "--rows", *map(str, rows)]
    ended = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables, "SIENN_BENCH_OPENMP": str(library)},
    )
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def intel_openmp() -> Path:
    """Intel's library, in an environment of its own."""
    from environment import python_with
    from serving_environments import BENCH

    return python_with([INTEL_OPENMP], folder=BENCH / "openmp").parents[1] / "lib" / "libiomp5.so"


def measured_in(way: str, rows: Sequence[int]) -> dict[str, float]:
    """Measure in one of the ways, in this process."""
    if way == "Intel's OpenMP":
        ctypes.CDLL(os.environ["SIENN_BENCH_OPENMP"], mode=ctypes.RTLD_GLOBAL)
    import torch

    if way == "first":
        return measured(rows)
    if way != "only team":
        torch.ones(1 << 20).exp()
    found: dict[str, float] = {}

    def go() -> None:
        if way == "one OpenMP thread":
            torch.set_num_threads(1)
        found.update(measured(rows))

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    return found


def measured(rows: Sequence[int]) -> dict[str, float]:
    """Milliseconds of a pass over all layers, and threads that went to sleep in one over everything."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    with torch.inference_mode():
        weights = [torch.randn(shape) for shape in SHAPES]
        adapters = [torch.randn(in_features, LORA_R) for _, in_features in SHAPES]
        shapes = [weight.new_zeros((1, 1)).expand(weight.shape) for weight in weights]
        packed = [
            torch.ops.mkl._mkl_reorder_linear_weight(weight, PACKED_FOR_NARROW if len(weight) < NARROW else PACKED_FOR)
            for weight in weights
        ]
        found: dict[str, float] = {}
        for num_rows in rows:
            inputs = {size: torch.randn(num_rows, size) for size in {size for _, size in SHAPES}}
            x = [inputs[size] for _, size in SHAPES]
            triples = list(zip(x, packed, shapes, strict=True))
            passes: dict[str, Callable[[], Any]] = {
                "F.linear": lambda x=x: [F.linear(*each) for each in zip(x, weights, strict=True)],
                "packed": lambda triples=triples, num_rows=num_rows: [
                    torch.ops.mkl._mkl_linear(each, weight, shape, None, num_rows) for each, weight, shape in triples
                ],
                "adapter": lambda x=x: [torch.mm(*each) for each in zip(x, adapters, strict=True)],
            }
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
            for name, one_pass in passes.items():
                found[f"{name}, {num_rows} row(s)"] = median_ms(one_pass)
            num_sleeps = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
            found[f"sleeps, {num_rows} row(s)"] = num_sleeps / (PASSES + 1)
        return found


def median_ms(one_pass: Callable[[], Any]) -> float:
    one_pass()
    times = []
    for _ in range(PASSES):
        began_s = time.perf_counter()
        one_pass()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times) * 1000


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--way", choices=WAYS, help="measure this one alone, and print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
