"""Milliseconds of a decoding step of our engine, as it computes and as it did with two threads that have workers.

SmolLM2-135M-Instruct in float32, random adapters (r 16, all seven projections), each request behind 128 tokens; every
way in a process of its own, in rounds; medians, and the share of the CPUs that was used.

    python benchmarks/decoding_steps.py [--rounds 3] [--requests 1 4 16 64] [--adapters 0 1 8] [--wakers 5]

With `--wakers`, so many other processes wake up a hundred times a second for some microseconds, as each of Ray's actors
does when it is idle: what a service costs its engine where all CPUs compute.

- now: loaded and computed in the one thread with OpenMP workers, each shape of linear layer as measured fastest.
- one thread: the same, but all linear layers packed by MKL.
- before: that, loaded in one thread and computed in another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "own"), str(HERE / "peers")]

from serving_material import BASE_MODEL, Material

WAYS = ("before", "one thread", "now")
CONTEXT_TOKENS, STEPS, BLOCK_TOKENS = 128, 15, 32
CACHE_BYTES = 2 << 30
# As Ray's workers look for signals; ends with whoever started it.
WAKER = """
import os, time
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.0099)
    until = time.perf_counter() + 60e-6
    while time.perf_counter() < until:
        pass
"""


def main() -> None:
    options = parse_options()
    material = Material(HERE.parent / ".bench" / "serving", HERE.parent / ".bench" / "models")
    if options.way:
        print(json.dumps(measured_in(options.way, material, options)))
        return
    material.prepare(max(options.adapters), set())
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for way in WAYS:
            with waking(options.wakers):
                rounds.setdefault(way, []).append(run(way, options))
    print(f"ms a step and share of the CPUs, medians of {options.rounds} rounds")
    print(f"{'requests / adapters':24}" + "".join(f"{way:>20}" for way in WAYS) + f"{'before / now':>16}")
    for setting in rounds["now"][0]:
        cells = {way: [found[setting] for found in rounds[way]] for way in WAYS}
        ms = {way: statistics.median(each["ms"] for each in cells[way]) for way in WAYS}
        shares = {way: statistics.median(each["cpu_share"] for each in cells[way]) for way in WAYS}
        words = "".join(f"{ms[way]:14.1f} {shares[way]:4.0%} " for way in WAYS)
        print(f"{setting:24}{words}{ms['before'] / ms['now']:16.2f}")


@contextlib.contextmanager
def waking(num_processes: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", WAKER]) for _ in range(num_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(way: str, options: argparse.Namespace) -> dict[str, Any]:
    numbers = ["--requests", *map(str, options.requests), "--adapters", *map(str, options.adapters)]
    command = [sys.executable, __file__, "--way", way, "--threads", str(options.threads), *numbers]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def measured_in(way: str, material: Material, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in one of the ways, in this process."""
    from sienn_ray.compute_threads import compute_here

    compute_here(options.threads)
    if way == "before":
        loaded = load(material, max(options.adapters), None)
        return in_thread(lambda: (compute_here(options.threads), measured(*loaded, options))[1])
    choices = material.folder / "cache" / "linear-layers.json" if way == "now" else None
    return measured(*load(material, max(options.adapters), choices), options)


def in_thread(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: found.update(call()))
    thread.start()
    thread.join()
    return found


def load(material: Material, num_adapters: int, choices: Path | None) -> tuple[Any, dict[str, Any]]:
    """A runner, and adapters by name."""
    import torch

    from sienn_ray.base_model import load_causal_lm
    from sienn_ray.inference.model.linear_choice import LinearChoices
    from sienn_ray.inference.model.lora_weights import read_lora
    from sienn_ray.inference.model.runner import ModelRunner

    model = load_causal_lm(material.model_folder, torch.device("cpu"))
    runner = ModelRunner(model, CACHE_BYTES, BLOCK_TOKENS, LinearChoices(choices))
    adapters = {
        str(number): read_lora(material.adapter(number), BASE_MODEL, runner.lora.layers, runner.dtype)
        for number in range(num_adapters)
    }
    return runner, adapters


def measured(runner: Any, adapters: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and share of the CPUs, by setting."""
    found: dict[str, Any] = {}
    for num_adapters in options.adapters:
        for num_requests in options.requests:
            name = f"{num_requests} / {num_adapters}"
            found[name] = one_setting(runner, adapters, num_requests, num_adapters, options.threads)
    return found


def one_setting(
    runner: Any, adapters: dict[str, Any], num_requests: int, num_adapters: int, num_threads: int
) -> dict[str, float]:
    from sienn_ray.inference.model.runner import StepRow

    num_blocks = -(-(CONTEXT_TOKENS + STEPS + 1) // BLOCK_TOKENS)
    names = [str(number % num_adapters) if num_adapters else None for number in range(num_requests)]
    blocks = [range(number * num_blocks, (number + 1) * num_blocks) for number in range(num_requests)]
    tokens = [[(31 * number + 7 * place) % 1000 for place in range(CONTEXT_TOKENS)] for number in range(num_requests)]
    for row, own, name in zip(tokens, blocks, names, strict=True):
        runner.step([StepRow(row, 0, own, name, False)], adapters)

    def step(number: int) -> Sequence[float]:
        for row in tokens:
            row.append(number)
        rows = [
            StepRow(row, len(row) - 1, own, name, True) for row, own, name in zip(tokens, blocks, names, strict=True)
        ]
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        runner.step(rows, adapters)
        return time.perf_counter() - began_s, time.process_time() - began_cpu_s

    step(0)
    times = [step(number) for number in range(1, STEPS)]
    wall_s, cpu_s = (sum(each) for each in zip(*times, strict=True))
    return {
        "ms": 1000 * statistics.median(each[0] for each in times),
        "cpu_share": cpu_s / (wall_s * num_threads),
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--adapters", type=int, nargs="+", default=[0, 1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wakers", type=int, default=0, help="processes beside that wake up often")
    parser.add_argument("--way", choices=WAYS, help="measure this one alone, and print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
