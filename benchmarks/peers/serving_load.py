"""What each server of `benchmarks/serving.py` is asked, and what is kept of its answers; the standard library alone.

A runner reads `Work` from a file, answers each of its loads, and writes what that took:

    python serving_X.py --work work.json --output out.json ...

A load has as many clients as it has concurrent requests. Each client sends its next request when its last one is
answered, so a server is never asked for more at a time, and for less only towards the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """A prompt, and the number of the adapter that goes on from it; None is the base model."""

    prompt: str
    adapter: int | None
    max_new_tokens: int


@dataclass(frozen=True)
class Load:
    """Requests, of which so many are under way at a time."""

    concurrency: int
    requests: list[Request]


@dataclass(frozen=True)
class Work:
    """All that a runner is told.

    Args:
        model_folder: The base model as transformers reads it.
        gguf: The same as llama.cpp reads it, by type of the weights.
        adapters: Folders with adapters, as PEFT writes them.
        gguf_adapters: The same as llama.cpp reads them.
        num_threads: CPUs to compute on.
        warm_up: Is answered before anything is measured; it has every adapter at least once.
        loads: Are answered one after the other.
        home: Of our service: converted base models and storage.
    """

    model_folder: str
    gguf: dict[str, str]
    adapters: list[str]
    gguf_adapters: list[str]
    num_threads: int
    warm_up: Load
    loads: list[Load]
    home: str

    @classmethod
    def read(cls, path: Path) -> Work:
        fields = json.loads(path.read_text())
        loads = [_load(each) for each in fields.pop("loads")]
        return cls(warm_up=_load(fields.pop("warm_up")), loads=loads, **fields)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @property
    def max_concurrency(self) -> int:
        return max(load.concurrency for load in [*self.loads, self.warm_up])


def _load(fields: dict[str, Any]) -> Load:
    return Load(fields["concurrency"], [Request(**each) for each in fields["requests"]])


@dataclass
class Answer:
    """When a request was sent, and when its first and last tokens came."""

    sent_s: float
    first_s: float = 0.0
    last_s: float = 0.0
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    text: str = ""

    def note(self, num_tokens: int, moment_s: float | None = None) -> None:
        """So many further tokens have come."""
        if not num_tokens:
            return
        moment_s = time.perf_counter() if moment_s is None else moment_s
        self.first_s = self.first_s or moment_s
        self.last_s = moment_s
        self.num_tokens += num_tokens


Answering = Callable[[Load], Sequence[Answer]]


@dataclass
class Listening:
    """Clients of a server that calls back: what it says goes into a queue, which one thread reads.

    Args:
        submit: Sends a request; whatever comes is told with `say`, under the number of the request.
    """

    submit: Callable[[int, Request], None]
    _said: queue.SimpleQueue[tuple[int, float, Any]] = field(default_factory=queue.SimpleQueue)

    def say(self, number: int, what: Any) -> None:
        """From any thread."""
        self._said.put((number, time.perf_counter(), what))

    def answer(self, load: Load, take: Callable[[Answer, float, Any], bool]) -> list[Answer]:
        """Answer all requests; `take` notes what has come for one and says whether it was the last."""
        answers: dict[int, Answer] = {}
        waiting = iter(enumerate(load.requests))

        def send() -> None:
            for number, request in waiting:
                answers[number] = Answer(time.perf_counter())
                self.submit(number, request)
                return

        for _ in range(load.concurrency):
            send()
        num_open = len(answers)
        while num_open:
            number, moment_s, what = self._said.get()
            if take(answers[number], moment_s, what):
                num_before = len(answers)
                send()
                num_open += len(answers) - num_before - 1
        return [answers[number] for number in sorted(answers)]


def main(description: str | None, open_server: Callable[[Work, argparse.Namespace], Any], *options: str) -> None:
    """Run a runner.

    Args:
        description: For `--help`.
        open_server: Gives a context manager around what answers loads; its `facts` are kept with the results.
        options: Names of further options, of which each is a string.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    for name in options:
        parser.add_argument(f"--{name}", default="")
    parsed = parser.parse_args()
    work = Work.read(parsed.work)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work.num_threads])
    began_s = time.perf_counter()
    with open_server(work, parsed) as answering:
        answering(work.warm_up)
        start_s = time.perf_counter() - began_s
        results = [measure(answering, load, work.num_threads) for load in work.loads]
        result = {"start_s": start_s, "loads": results, "facts": getattr(answering, "facts", {})}
    parsed.output.write_text(json.dumps(result, indent=2) + "\n")


def measure(answering: Answering, load: Load, num_threads: int) -> dict[str, Any]:
    """Answer a load, and say what that took."""
    cpu_s, began_s = tree_cpu_s(), time.perf_counter()
    answers = answering(load)
    wall_s, cpu_s = time.perf_counter() - began_s, tree_cpu_s() - cpu_s
    first_s = [answer.first_s - answer.sent_s for answer in answers]
    each_s = [(answer.last_s - answer.first_s) / (answer.num_tokens - 1) for answer in answers if answer.num_tokens > 1]
    num_tokens = sum(answer.num_tokens for answer in answers)
    return {
        "concurrency": load.concurrency,
        "num_requests": len(answers),
        "num_prompt_tokens": sum(answer.num_prompt_tokens for answer in answers),
        "num_tokens": num_tokens,
        "wall_s": wall_s,
        # Of this process and all below it, so that servers and workers count. Clearly less than the threads' seconds
        # says that other programs took the CPU, or that the server couldn't use it.
        "cpu_s": cpu_s,
        "thread_s": wall_s * num_threads,
        "tokens_per_s": num_tokens / wall_s,
        "first_s": percentiles(first_s),
        "each_s": percentiles(each_s),
        "texts": [answer.text for answer in answers],
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The median, and what 95 in 100 stay below; nearest rank, so that each is a value that was measured."""
    if not values:
        return {"p50": 0.0, "p95": 0.0}
    ordered = sorted(values)
    return {"p50": statistics.median_low(ordered), "p95": ordered[max(0, -(-95 * len(ordered) // 100) - 1)]}


def tree_cpu_s() -> float:
    """CPU seconds of this process and of all below it, from Linux's /proc, also of ended ones that were waited for."""
    parents, seconds = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # A process may end while it is looked at.
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                seconds[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return sum(seconds[process] for process in seconds if os.getpid() in _line(process, parents))


def _line(process: int, parents: dict[int, int]) -> Iterator[int]:
    """A process, the one above it, and so on."""
    while process:
        yield process
        process = parents.get(process, 0)
