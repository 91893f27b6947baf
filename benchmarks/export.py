"""What an export costs beside the direct way: PEFT's merge, save, llama.cpp's convert script, llama.cpp's quantize.

Claim: no slower than the direct way, with half the memory. Both make a Q4_K_M GGUF and a merged model in safetensors of
the same base model and adapter, in processes of their own, in turns; medians of `--rounds` rounds. Seconds are those of
whole processes, their imports included; memory is the peak of the process that had most (VmHWM, shared pages included).

The larger base model is a random Llama of 0.8 billion parameters in bfloat16, in shards of 400 MB.

Run: `python benchmarks/export.py [--rounds 3] [--base small|large]`
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.peers.export_llamacpp import FOLDER, LlamaCppTools, llamacpp_tools

HERE = Path(__file__).parent
QUANTIZATION = "Q4_K_M"
MIB = 1024


@dataclass(frozen=True)
class Cost:
    """What programs took, one after another.

    Args:
        seconds: All of them together.
        peak_mib: The one that had most.
    """

    seconds: float
    peak_mib: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, max(self.peak_mib, other.peak_mib))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", choices=["small", "large"], default="small")
    arguments = parser.parse_args()
    tools = llamacpp_tools()
    with tempfile.TemporaryDirectory(dir=REPOSITORY / ".bench") as folder:
        material = Path(folder) / "material"
        run(HERE / "own" / "export_material.py", arguments.base, material)
        compare(material, tools, arguments.rounds)


def compare(material: Path, tools: LlamaCppTools, rounds: int) -> None:
    costs: dict[str, list[Cost]] = defaultdict(list)
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=material.parent) as name:
            folder = Path(name)
            order = [0, 1] if number % 2 == 0 else [1, 0]
            for turn in order:
                if turn == 0:
                    ours(material, folder, costs)
                else:
                    direct(material, folder, tools, costs)
            if number == 0:
                say_types(folder)
    idle = run(HERE / "own" / "export_run.py", material, material.parent, "nothing")
    print(f"our process without any export: {idle.peak_mib:.0f} MiB")
    sizes = json.loads((material / "sizes.json").read_text())
    print(", ".join(f"{name} {size}" for name, size in sizes.items()))
    for what in ("merged", QUANTIZATION):
        say(what, costs[f"ours {what}"], costs[f"direct {what}"])


def ours(material: Path, folder: Path, costs: dict[str, list[Cost]]) -> None:
    for what in ("merged", QUANTIZATION):
        costs[f"ours {what}"].append(run(HERE / "own" / "export_run.py", material, folder / "ours", what))


def direct(material: Path, folder: Path, tools: LlamaCppTools, costs: dict[str, list[Cost]]) -> None:
    merged, whole, quantized = folder / "merged", folder / "whole.gguf", folder / "direct.gguf"
    merge = run(HERE / "peers" / "export_merge.py", material / "base", material / "adapter", merged)
    costs["direct merged"].append(merge)
    convert = run(tools.convert_script, merged, "--outtype", "auto", "--outfile", whole)
    quantize = run(HERE / "peers" / "export_quantize.py", tools.library, whole, quantized, QUANTIZATION)
    costs[f"direct {QUANTIZATION}"].append(merge + convert + quantize)


def say_types(folder: Path) -> None:
    """Whether both files have the same types and sizes, tensor by tensor."""
    own = {
        tensor.name: (tensor.tensor_type, tensor.n_bytes)
        for tensor in gguf.GGUFReader(next(folder.glob("ours/**/*.gguf"))).tensors
    }
    other = {
        tensor.name: (tensor.tensor_type, tensor.n_bytes) for tensor in gguf.GGUFReader(folder / "direct.gguf").tensors
    }
    differing = [name for name in own.keys() | other.keys() if own.get(name) != other.get(name)]
    print(f"{len(own)} tensors, {len(differing)} of another type than llama.cpp's quantize gives {differing[:3]}")


def run(script: Path, *arguments: object) -> Cost:
    """Run a Python program to its end."""
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}:{FOLDER / 'site'}",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{script.name} failed:\n{said.decode()[-3000:]}")
    return Cost(time.perf_counter() - started, usage.ru_maxrss / MIB)


def say(what: str, own: Sequence[Cost], other: Sequence[Cost]) -> None:
    own_s, other_s = (statistics.median(cost.seconds for cost in costs) for costs in (own, other))
    own_mib, other_mib = (statistics.median(cost.peak_mib for cost in costs) for costs in (own, other))
    print(
        f"{what:8} ours {own_s:6.1f} s {own_mib:6.0f} MiB   direct {other_s:6.1f} s {other_mib:6.0f} MiB   "
        f"ours / direct: time {own_s / other_s:.2f}, memory {own_mib / other_mib:.2f}"
    )


if __name__ == "__main__":
    main()
