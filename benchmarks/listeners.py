"""Many listeners to one real fine-tune: how long after a change they are told, and what is missing in the end.

A service of its own trains the random two-layer model, and so many clients follow the job over server-sent events, each
over a connection of its own, from its first point on. The delay is from the moment that the tracker wrote down to the
arrival at the client, on the same clock; moments have milliseconds. Points from before all have come are counted apart:
they say how long it takes until all hear, however many come at once.

    python benchmarks/listeners.py [--listeners 1 100 500] [--epochs 20]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.integration.service import ROWS, Service, make_hub_home, running_service
from tests.support.tiny_model import save_tiny_model

TIMEOUT_S = 120.0
# So that the fine-tune takes long enough for all to come.
REPEATS = 8


class Heard:
    """What one client heard: the moments of points and of their arrival, the steps and the last update."""

    def __init__(self) -> None:
        self.began_at = 0.0
        self.points: list[tuple[float, float]] = []
        self.steps: set[int] = set()
        self.last = ""


async def listen(client: httpx2.AsyncClient, url: str) -> Heard:
    """Follow a job to its end."""
    heard = Heard()
    async with client.stream("GET", url, headers={"Last-Event-ID": "0.0"}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            heard.began_at = heard.began_at or time.time()
            if field == "event":
                heard.last = value
            elif field == "data" and heard.last == "point":
                point: dict[str, Any] = json.loads(value)
                heard.points.append((datetime.fromisoformat(point["created_at"]).timestamp(), time.time()))
                heard.steps.add(point["step"])
    return heard


async def listen_all(url: str, number: int) -> list[Heard]:
    """Have so many clients follow a job to its end."""
    limits = httpx2.Limits(max_connections=number)
    async with httpx2.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client:
        return list(await asyncio.gather(*(listen(client, url) for _ in range(number))))


def measure(service: Service, number: int, num_epochs: int) -> None:
    """Train once beside so many listeners, and print what they heard."""
    job_id = service.start(service.upload("\n".join([ROWS] * REPEATS)), num_epochs=num_epochs, batch_size=2)
    service.wait_until(job_id, lambda job: job["meta"].get("current_step"), "the first step")
    asked_at = time.time()
    heard = asyncio.run(listen_all(f"{service.url}/api/events/jobs/{job_id}", number))
    curve = {point["step"] for point in service.get(f"/api/jobs/{job_id}/metrics")["points"]}
    all_at = max(each.began_at for each in heard)
    delays_s = sorted(told - made for each in heard for made, told in each.points if made > all_at)
    num_whole = sum(each.steps == curve and each.last == "end" for each in heard)
    print(
        f"{number:5} listeners, all there after {all_at - asked_at:.1f} s: {len(curve)} points, {num_whole} heard all "
        f"of them and the end; {len(delays_s) // number} came since; "
        f"delay median {statistics.median(delays_s):.2f} s, p99 {delays_s[int(0.99 * len(delays_s))]:.2f} s, "
        f"worst {delays_s[-1]:.2f} s",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, nargs="+", default=[1, 100, 500])
    parser.add_argument("--epochs", type=int, default=10, help="of the fine-tune")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sienn-listeners-") as scratch:
        save_tiny_model(Path(scratch) / "tiny-model")
        hub_home = make_hub_home(Path(scratch) / "hub", Path(scratch) / "tiny-model")
        with running_service(Path(scratch) / "home", hub_home) as service:
            for number in options.listeners:
                measure(service, number, options.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
