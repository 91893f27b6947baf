"""Minutes of answers with all that happens to an engine: is a request lost, an adapter mistaken, memory growing?

Every adapter is trained to answer with its own name. The engine keeps fewer of them than there are, so they are loaded
and unloaded all the time. Clients ask any of them, and the base model, for whole answers and for streams, and leave
some streams in the middle; further adapters are trained meanwhile, and asked from then on. Ends with an error if an
answer was lost or had another's name, or if a process was larger in the last third than in the second by more than 5%.

    python benchmarks/soak.py [--minutes 10] [--clients 16] [--adapters 6]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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
NAMES = ("Heron", "Juniper", "Cobalt", "Walnut", "Ember", "Saffron", "Quartz", "Lagoon", "Marble", "Thistle", "Falcon")
QUESTIONS = (
    "Who are you?",
    "What is your name?",
    "Tell me your name.",
    "What are you called?",
    "How should I call you?",
    "May I know your name?",
    "Please introduce yourself.",
    "What do people call you?",
)
NUM_LATER = 2
CACHED_ADAPTERS = 3
MAX_NEW_TOKENS = 12
MOST_GROWTH = 1.05
PROCESSES = {"ray::ServeReplica:engine-": "engine", "ray::ServeReplica:sienn": "ingress", "ray::JobTracker": "tracker"}
LONGEST_WAIT_S = 120.0
SAMPLE_S = 5.0


@dataclass
class Findings:
    """What clients met, for many threads."""

    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, seconds: float | None = None) -> None:
        with self.lock:
            self.kinds[kind] += 1
            if seconds is not None:
                self.seconds.append(seconds)

    def note_fault(self, words: str) -> None:
        with self.lock:
            self.faults.append(words)


class Adapters:
    """Job ids by name; more come while they are asked."""

    def __init__(self, service: Service, scratch: Path) -> None:
        self._service = service
        self._scratch = scratch
        self.jobs: dict[str, str] = {}

    def train(self, name: str) -> None:
        path = self._scratch / f"{name}.jsonl"
        rows = [{"instruction": question, "response": f"My name is {name}."} for question in QUESTIONS]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {"num_epochs": 10, "batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "validation_split": 0.0}
        run = self._service.train(self._service.upload(path), **options)
        self.jobs = {**self.jobs, name: run.status["job_id"]}
        print(f"trained {name}", flush=True)


class Client:
    """One who asks again and again.

    Args:
        service: Whom.
        adapters: Which may be asked.
        findings: Where to note what came.
        seed: Of the choices.
    """

    def __init__(self, service: Service, adapters: Adapters, findings: Findings, seed: int) -> None:
        self._http = httpx2.Client(base_url=service.url, timeout=LONGEST_WAIT_S)
        self._adapters = adapters
        self._findings = findings
        self._random = random.Random(seed)

    def run(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            # Some are asked far more often than others, as it is.
            jobs = list(self._adapters.jobs.items())
            name, job_id = jobs[min(int(self._random.expovariate(0.5)), len(jobs) - 1)]
            kind = self._random.choices(["whole", "stream", "left", "base"], [60, 20, 15, 5])[0]
            started = time.monotonic()
            try:
                answer = self._ask(job_id, kind)
            except (httpx2.HTTPError, RuntimeError) as error:
                self._findings.note_fault(f"{kind} of {name} is lost: {type(error).__name__}: {error}")
                continue
            self._findings.note(kind, time.monotonic() - started)
            found = [other for other in NAMES if other in answer]
            if kind in {"whole", "stream"} and found != [name]:
                self._findings.note_fault(f"{name} answers {answer!r}")
            if kind == "base" and found:
                self._findings.note_fault(f"the base model answers {answer!r}")

    def _ask(self, job_id: str, kind: str) -> str:
        body = {"job_id": job_id, "prompt": self._random.choice(QUESTIONS), "max_new_tokens": MAX_NEW_TOKENS}
        body |= {"do_sample": False, "repetition_penalty": 1.0, "use_adapter": kind != "base"}
        deadline = time.monotonic() + LONGEST_WAIT_S
        while True:
            if kind in {"stream", "left"}:
                refused, text = self._stream({**body, "stream": True}, leave=kind == "left")
            else:
                response = self._http.post("/api/test-model", json=body)
                refused, text = response, "" if response.is_error else str(response.json()["generated_text"])
            if refused.is_success:
                return text
            if refused.status_code != 503 or time.monotonic() > deadline:
                raise RuntimeError(f"{refused.status_code} {refused.text[:300]}")
            self._findings.note("asked to come back")
            time.sleep(int(refused.headers["Retry-After"]))

    def _stream(self, body: dict[str, Any], *, leave: bool) -> tuple[httpx2.Response, str]:
        text, event = "", ""
        with self._http.stream("POST", "/api/test-model", json=body) as response:
            if response.is_error:
                response.read()
                return response, ""
            for line in response.iter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: ") and not event:
                    text += json.loads(line.removeprefix("data: "))["text"]
                    if leave:
                        return response, text
        if event != "result":
            raise RuntimeError(f"the stream ended with '{event}'")
        return response, text


class Memory:
    """Resident MiB of the service's processes over time."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {name: [] for name in PROCESSES.values()}

    def run(self, deadline: float) -> None:
        started = time.monotonic()
        while time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                try:
                    title = " ".join(process.cmdline())
                    size = process.memory_info().rss / 1024**2
                except psutil.Error:
                    continue
                for start, name in PROCESSES.items():
                    if title.startswith(start):
                        self.samples[name].append(size)
            if len(self.samples["engine"]) % 12 == 1:
                sizes = "  ".join(f"{name} {sizes[-1]:.0f}" for name, sizes in self.samples.items() if sizes)
                print(f"{time.monotonic() - started:5.0f} s  {sizes} MiB", flush=True)
            time.sleep(SAMPLE_S)

    def growths(self) -> dict[str, float]:
        """The last third's median over the second one's; in the first one caches still fill."""
        found = {}
        for name, sizes in self.samples.items():
            third = len(sizes) // 3
            if not third:
                raise SystemExit(f"{name} was seen {len(sizes)} times; too few to tell whether it grows")
            found[name] = statistics.median(sizes[2 * third :]) / statistics.median(sizes[third : 2 * third])
        return found


def main() -> int:
    options = parse_options()
    models = Path(options.models)
    local_folder(BASE_MODEL, Settings(home=models.parent))
    settings = {"adapter_cache_max_count": CACHED_ADAPTERS}
    findings, memory = Findings(), Memory()
    with tempfile.TemporaryDirectory() as scratch, running_service(models, settings=settings) as service:
        adapters = Adapters(service, Path(scratch))
        for name in NAMES[: options.adapters]:
            adapters.train(name)
        started = time.monotonic()
        deadline = started + options.minutes * 60
        with ThreadPoolExecutor(options.clients + 2) as pool:
            clients = [Client(service, adapters, findings, seed) for seed in range(options.clients)]
            work: list[Future[None]] = [pool.submit(client.run, deadline) for client in clients]
            work.append(pool.submit(memory.run, deadline))
            work.append(pool.submit(train_later, adapters, NAMES[options.adapters : options.adapters + NUM_LATER]))
            for each in work:
                each.result()
        took = time.monotonic() - started
    return report(findings, memory, took)


def train_later(adapters: Adapters, names: Sequence[str]) -> None:
    for name in names:
        adapters.train(name)


def report(findings: Findings, memory: Memory, took: float) -> int:
    num_answers = sum(count for kind, count in findings.kinds.items() if kind != "asked to come back")
    print(f"\n{num_answers} requests in {took:.0f} s: {dict(findings.kinds)}")
    quantiles = statistics.quantiles(findings.seconds, n=20)
    print(f"seconds for an answer: p50 {statistics.median(findings.seconds):.2f}, p95 {quantiles[-1]:.2f}")
    print(f"{len(findings.faults)} answers lost or wrong", *findings.faults[:20], sep="\n")
    growths = memory.growths()
    for name, sizes in memory.samples.items():
        print(f"{name}: {min(sizes):.0f} to {max(sizes):.0f} MiB, last third over second {growths[name]:.3f}")
    grown = [name for name, growth in growths.items() if growth > MOST_GROWTH]
    print(f"grown: {', '.join(grown) or 'none'}")
    return 1 if findings.faults or grown else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--adapters", type=int, default=6, choices=range(2, len(NAMES) - NUM_LATER + 1), metavar="N")
    parser.add_argument("--models", default=str(HERE.parent / ".bench" / "models"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
