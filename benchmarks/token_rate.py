"""What the service costs at a GPU's rate: streams through HTTP beside the same engine asked in its own process.

The engine makes tokens at a given rate without computing (`benchmarks/own/paced_engine.py`); all else is the service as
it is: proxy, ingress, router, replica, pieces, events. Rounds take turns; medians are what counts. A process that
computes for as long as the load lasts is saturated: its share of a CPU is printed beside the rates, and so is that of
the client, which only counts bytes until an event has the usage.

    python benchmarks/token_rate.py [--streams 64] [--rate 4000] [--tokens 400] [--rounds 3] [--setting NAME=VALUE ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "own"), str(HERE.parent)]

from paced_engine import RATE_ENVIRONMENT, PacedEngine
from platform_run import running_service

from sienn_ray.base_model import local_folder
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, SamplingParams
from sienn_ray.settings import Settings

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPT = "What does the heron do?"
_KINDS = {
    "ray::ServeReplica:sienn:": "ingress",
    "ray::ServeReplica:": "engine's replica",
    "ray::ProxyActor": "proxy",
    "ray::ServeController": "controller",
    "ray::JobTracker": "tracker",
}


@dataclass(frozen=True)
class Round:
    """One load.

    Args:
        tokens_per_s: Of all streams, from the first request to the last token.
        num_pieces: Events, or deltas, that came.
        cpu_shares: CPU seconds per second, by process.
    """

    tokens_per_s: float
    num_pieces: int
    cpu_shares: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4000.0, help="tokens a second of all streams together")
    parser.add_argument("--tokens", type=int, default=400, help="of one answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    each = options.rate / options.streams
    os.environ[RATE_ENVIRONMENT] = str(each)
    chosen = {"engine_max_batch": options.streams, "engine_max_queue": 2 * options.streams, "engine_num_gpus": 0}
    chosen |= {name: value for name, _, value in (setting.partition("=") for setting in options.setting)}
    with tempfile.TemporaryDirectory(prefix="sienn-rate-") as scratch:
        folder = Path(scratch)
        local_folder(BASE_MODEL, Settings(home=folder))  # converts it, once
        alone, served = [], []
        with paced_service(folder, chosen) as port, paced_engine(folder, chosen, each) as engine:
            asyncio.run(serve(port, options.streams, 20))  # the engine's start
            for number in range(options.rounds):
                alone.append(ask(engine, options.streams, options.tokens))
                show(f"round {number + 1}, alone", alone[-1])
                served.append(measured(port, options.streams, options.tokens))
                show(f"round {number + 1}, HTTP", served[-1])
    report(alone, served)


@contextmanager
def paced_service(folder: Path, chosen: dict[str, object]) -> Iterator[int]:
    """The whole service, its engine a clock; yields its port."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "own" / "paced"), before])
    try:
        with running_service(folder / "models", settings=chosen) as service:
            yield int(service.url.rpartition(":")[2])
    finally:
        os.environ["PYTHONPATH"] = before


@contextmanager
def paced_engine(folder: Path, chosen: dict[str, object], rate: float) -> Iterator[PacedEngine]:
    """The same engine in this process."""
    engine = PacedEngine(BASE_MODEL, Settings(home=folder, **chosen), tokens_per_s=rate)  # type: ignore[arg-type]
    try:
        yield engine
    finally:
        engine.close()


def ask(engine: PacedEngine, num_streams: int, num_tokens: int) -> Round:
    """Have an engine answer so many requests at once."""
    left, done, pieces = [num_streams], threading.Event(), [0]

    def listen(delta: GenerationDelta) -> None:  # from the engine's one thread
        pieces[0] += 1
        left[0] -= delta.is_last
        if not left[0]:
            done.set()

    request = GenerationRequest(PROMPT, sampling=SamplingParams(max_new_tokens=num_tokens, do_sample=False))
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(num_streams):
        engine.submit(request, listen)
    done.wait()
    wall_s = time.perf_counter() - began_s
    return Round(num_streams * num_tokens / wall_s, pieces[0], {"this": (time.process_time() - cpu_s) / wall_s})


def measured(port: int, num_streams: int, num_tokens: int) -> Round:
    """Have the service answer so many streams at once."""
    before, cpu_s, began_s = cpu_seconds(), time.process_time(), time.perf_counter()
    num_pieces = asyncio.run(serve(port, num_streams, num_tokens))
    wall_s = time.perf_counter() - began_s
    after = cpu_seconds()
    shares = {name: (after[name] - before.get(name, 0.0)) / wall_s for name in after}
    shares["client"] = (time.process_time() - cpu_s) / wall_s
    return Round(num_streams * num_tokens / wall_s, num_pieces, shares)


async def serve(port: int, num_streams: int, num_tokens: int) -> int:
    """Open so many streams, and return the number of their events.

    Raises:
        RuntimeError: An answer wasn't what was asked for.
    """
    return sum(await asyncio.gather(*(stream(port, num_tokens) for _ in range(num_streams))))


async def stream(port: int, num_tokens: int) -> int:
    """Read one stream to its end over a connection of its own."""
    asked = {
        "model": BASE_MODEL, "prompt": PROMPT, "max_tokens": num_tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    body = json.dumps(asked).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    num_events, tail = 0, b""
    while read := await reader.read(1 << 16):
        num_events += read.count(b"data: ")
        tail = (tail + read)[-2000:]
    writer.close()
    if b'"completion_tokens":%d' % num_tokens not in tail or b"[DONE]" not in tail:
        raise RuntimeError(f"not {num_tokens} tokens: {tail.decode(errors='replace')}")
    return num_events


def cpu_seconds() -> dict[str, float]:
    """CPU seconds of the service's processes so far, by what they do; of several of a kind, each."""
    found: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            command, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        kind = next((kind for prefix, kind in _KINDS.items() if command.startswith(prefix)), None)
        if "raylet/raylet" in command:
            kind = "raylet"
        if kind is not None:
            number = sum(name.startswith(kind) for name in found)
            found[f"{kind} {number + 1}"] = times.user + times.system
    return found


def show(name: str, found: Round) -> None:
    shares = "  ".join(f"{process} {share:.0%}" for process, share in found.cpu_shares.items())
    print(f"{name}: {found.tokens_per_s:,.0f} tokens/s, {found.num_pieces:,} pieces; {shares}", flush=True)


def report(alone: list[Round], served: list[Round]) -> None:
    own, through = (statistics.median(each.tokens_per_s for each in rounds) for rounds in (alone, served))
    print(f"\nmedians: alone {own:,.0f} tokens/s, through HTTP {through:,.0f}: {1 - through / own:.1%} less")
    for name in served[0].cpu_shares:
        print(f"  {name:20} {statistics.median(each.cpu_shares.get(name, 0.0) for each in served):.0%} of a CPU")


if __name__ == "__main__":
    main()
