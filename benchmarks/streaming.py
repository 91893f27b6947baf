"""Memory of every process while a run goes through two million generated rows.

    python benchmarks/streaming.py [--rows 2000000] [--seconds 240]

The base model is a random two-layer one, so that rows pass quickly. What is compared is each process with itself: its
memory at the end over its memory when training had just begun; and the rows that were tokenized ahead of training.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "own"), str(HERE.parent)]

from platform_run import Service, running_service

from tests.support.tiny_model import TINY_ID, add_to_hub_cache, save_tiny_model

WORDS = ("heron", "juniper", "cobalt", "walnut", "ember", "saffron", "quartz", "lagoon", "meadow", "copper")
EVERY_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=240.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sienn-stream-") as scratch:
        folder = Path(scratch)
        save_tiny_model(folder / "tiny")
        add_to_hub_cache(folder / "tiny", folder / "hub", TINY_ID)
        os.environ["HF_HOME"] = str(folder / "hub")
        data = folder / "rows.csv"
        write_rows(data, options.rows)
        print(f"{options.rows:,} rows, {data.stat().st_size / 1e6:.0f} MB", flush=True)
        with running_service(folder / "models") as service:
            watch(service, service.upload(data), options.seconds)


def write_rows(path: Path, count: int) -> None:
    """Rows of some twenty tokens."""
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("instruction,response\n")
        for number in range(count):
            file.write(f"Which word has number {number}?,It is {' '.join(chance.choices(WORDS, k=6))}.\n")


def watch(service: Service, dataset_id: str, seconds: float) -> None:
    """Start a run, and print what its processes have, from the first step on."""
    body = {
        "dataset_id": dataset_id, "model_name": TINY_ID, "num_epochs": 1, "batch_size": 32, "max_length": 128,
        "validation_split": 0.0, "max_train_time_s": seconds,
    }  # fmt: skip
    answer = httpx2.post(f"{service.url}/api/start-finetuning", json=body, timeout=120).raise_for_status()
    url = f"{service.url}/api/training-status/{answer.json()['job_id']}"
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    began: float | None = None
    while (job := httpx2.get(url, timeout=60).raise_for_status().json())["status"] not in {"completed", "failed"}:
        step = job["meta"].get("current_step")
        if step:
            began = began or time.monotonic()
            found = memory_mib()
            # What a process takes in its first seconds is imports, buffers and the first batches.
            if not first and time.monotonic() - began > EVERY_S:
                first = found
            last = found or last
            shown = "  ".join(f"{name} {mib:.0f}" for name, mib in sorted(found.items()))
            print(f"{time.monotonic() - began:5.0f} s  step {step:6}  {shown}", flush=True)
        time.sleep(EVERY_S if step else 1.0)
    meta = job["meta"]
    print(
        f"\n{job['status']}: {job['message']}; {meta.get('num_tokens', 0):,} tokens, stopped by {meta['stop_reason']}"
    )
    print(f"{meta['tokens_per_s']:,.0f} tokens/s")
    for name in sorted(name for name in first.keys() & last.keys() if first[name]):
        print(f"{name:34} {first[name]:6.0f} -> {last[name]:6.0f} MiB  ratio {last[name] / first[name]:.2f}")


def memory_mib() -> dict[str, float]:
    """Resident memory by what processes do, without what they share with the object store."""
    kinds = {
        "ray::RayTrainWorker": "training worker",
        "ray::MapBatches": "tokenizing task",
        "ray::IDLE": "idle processes",
        "ray::TrainController": "controller",
        "ray::JobTracker": "tracker",
        "ray::ServeReplica": "ingress",
    }
    found: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            command, memory = " ".join(process.cmdline()), process.memory_info()
        except psutil.Error:
            continue
        kind = next((name for prefix, name in kinds.items() if command.startswith(prefix)), None)
        kind = "program" if "sienn_ray.train " in command and kind is None else kind
        if "raylet/raylet" in command:
            kind = "raylet"
            found["object store"] = object_store_mib(process.pid)
        if kind is not None:
            found[kind] = found.get(kind, 0.0) + (memory.rss - memory.shared) / 1024**2
    return found


def object_store_mib(raylet: int) -> float:
    """Pages taken by the object store, whose file has no name any more and is found among those that the raylet has."""
    stores = [path for path in Path(f"/proc/{raylet}/fd").iterdir() if "plasma" in str(path.readlink())]
    return sum({path.stat().st_ino: path.stat().st_blocks * 512 for path in stores}.values()) / 1024**2


if __name__ == "__main__":
    main()
