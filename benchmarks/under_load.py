"""A service's idle CPU, and how soon it answers /health and a job's status while its engine, or a run too, computes.

Three phases on one service with SmolLM2-135M-Instruct: an engine that has nothing to do (share of a core, by process),
clients that ask for streams all the time, and the same beside a fine-tune. In the last two, /health and the status of
a job are asked for four times a second; milliseconds until they are answered, and a second's tokens of the
streams that have ended meanwhile, which short phases count badly.

    python benchmarks/under_load.py [--seconds 30] [--clients 16] [--rows 64]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "own"))

from platform_run import Service, running_service

from sienn_ray.base_model import local_folder
from sienn_ray.settings import Settings

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_TOKENS, LOOK_S, TIMEOUT_S = 32, 0.25, 600.0
NAMES = {"engine": "ServeReplica:engine", "ingress": "ServeReplica:sienn", "tracker": "JobTracker"}


def main() -> None:
    options = parse_options()
    models = HERE.parent / ".bench" / "models"
    local_folder(BASE_MODEL, Settings(home=models.parent))  # converts it, which is nobody's load
    with running_service(models) as service, tempfile.TemporaryDirectory() as folder:
        few, many = (service.upload(rows_file(Path(folder), number)) for number in (8, options.rows))
        job_id = service.train(few, num_epochs=1).status["job_id"]
        stream(service, 0)
        time.sleep(5)
        print("idle, % of a core:", idle(options.seconds), flush=True)
        with streams(service, options.clients) as tokens:
            print(f"{options.clients} streams:", looks(service, job_id, tokens, options.seconds, lambda: True))
        with streams(service, options.clients) as tokens, training(service, many) as is_going_on:
            print("the same beside a run:", looks(service, job_id, tokens, options.seconds, is_going_on))


def rows_file(folder: Path, num_rows: int) -> Path:
    path = folder / f"{num_rows}.jsonl"
    rows = ({"instruction": f"What day is day {n}?", "response": f"It is day {n}. " * 12} for n in range(num_rows))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def idle(seconds: float) -> dict[str, float]:
    """Share of a core by process, of all that have begun since this program, and together."""
    processes = [each for each in psutil.Process().children(recursive=True) if each.is_running()]
    before = {each: cpu_s(each) for each in processes}
    time.sleep(seconds)
    used = {each: 100 * (cpu_s(each) - before[each]) / seconds for each in processes}
    named = {
        name: round(sum(share for each, share in used.items() if title in " ".join(cmdline(each))), 1)
        for name, title in NAMES.items()
    }
    return {**named, "all": round(sum(used.values()), 1)}


def cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def cmdline(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


@contextlib.contextmanager
def streams(service: Service, num_clients: int) -> Iterator[list[int]]:
    """Clients that ask until the block ends; what is given counts the tokens of each answer that has ended."""
    tokens: list[int] = []
    is_over = threading.Event()

    def ask(number: int) -> None:
        while not is_over.is_set():
            tokens.append(stream(service, number))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(num_clients)]
    for thread in threads:
        thread.start()
    try:
        yield tokens
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def stream(service: Service, number: int) -> int:
    """Ask for an answer piece by piece; its tokens."""
    body = {
        "model": BASE_MODEL,
        "prompt": f"{number} things to know about the sea: " * 8,
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with httpx2.stream("POST", f"{service.url}/v1/completions", json=body, timeout=TIMEOUT_S) as answer:
        answer.raise_for_status()
        lines = [line[len("data: ") :] for line in answer.iter_lines() if line.startswith("data: {")]
    return int(json.loads(lines[-1])["usage"]["completion_tokens"])


@contextlib.contextmanager
def training(service: Service, dataset_id: str) -> Iterator[Callable[[], bool]]:
    """A fine-tune that takes its steps; what is given tells whether it still does."""
    body = {"dataset_id": dataset_id, "model_name": BASE_MODEL, "num_epochs": 10}
    answer = httpx2.post(f"{service.url}/api/start-finetuning", json=body, timeout=60).raise_for_status()
    job_id = answer.json()["job_id"]

    def status() -> Any:
        return httpx2.get(f"{service.url}/api/training-status/{job_id}", timeout=60).raise_for_status().json()

    deadline = time.monotonic() + TIMEOUT_S
    while status()["meta"].get("phase") != "training":
        if time.monotonic() > deadline:
            raise RuntimeError(f"job {job_id} took no step within {TIMEOUT_S:.0f} s")
        time.sleep(1)
    try:
        yield lambda: status()["status"] == "running"
    finally:
        httpx2.post(f"{service.url}/api/jobs/{job_id}/cancel", timeout=60)


def looks(
    service: Service, job_id: str, tokens: list[int], seconds: float, is_going_on: Callable[[], bool]
) -> dict[str, Any]:
    """Milliseconds until each route answers, and tokens a second, while all of that goes on."""
    paths = {"/health": "/health", "status": f"/api/training-status/{job_id}"}
    times: dict[str, list[float]] = {name: [] for name in paths}
    began_s, num_before = time.monotonic(), sum(tokens)
    while time.monotonic() - began_s < seconds:
        for name, path in paths.items():
            asked_s = time.perf_counter()
            httpx2.get(service.url + path, timeout=60).raise_for_status()
            times[name].append(1000 * (time.perf_counter() - asked_s))
        time.sleep(LOOK_S)
    if not is_going_on():
        raise RuntimeError("the run ended before all was measured; give it more rows (--rows)")
    found: dict[str, Any] = {
        name: {"p50": round(statistics.median(each)), "max": round(max(each))} for name, each in times.items()
    }
    return {**found, "tokens_per_s": round((sum(tokens) - num_before) / (time.monotonic() - began_s), 1)}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64, help="of the data set that is trained on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
