"""Redeploys a service under load with other settings each time: does every part get them, and is a request lost?

Settings alternate between SQLite and PostgreSQL, and between two storage URLs, on one Ray cluster. Four clients poll
all the time. After each redeploy the tracker, the ingress and the engine have to use the new database and storage: the
tracker says so, an upload has to lie in the new storage and no other, and the adapter that was trained over it has to
answer. Prints the seconds of each redeploy and how requests went; the exit code says whether all of it was so.

    python benchmarks/redeploy.py [--times 10]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.integration.service import PROMPT, ROWS, RefusedError, Service, make_hub_home, running_service
from tests.support.postgres import postgres_server
from tests.support.tiny_model import save_tiny_model

NUM_CLIENTS = 4
LONGEST_REDEPLOY_S = 60.0
LOOK_S = 0.25
REQUEST_S = 120.0
REDEPLOY = """
from ray import serve
from deployments.app import application_of
from sienn_ray.settings import Settings
serve.run(application_of(Settings(**{settings!r})), name="sienn", route_prefix="/")
"""
TRACKERS_SETTINGS = """
tracker = ray.get_actor("job_tracker", namespace="sienn")
print(ray.get(tracker.settings.remote(), timeout=30).storage_url)
"""


@dataclass
class Variant:
    """Settings to deploy with, and the job that was trained over them.

    Args:
        database: As `/api/health/services` names it.
        database_url: Its URL.
        storage: Folder of the artifacts.
        job_id: Set once it has been trained.
    """

    database: str
    database_url: str
    storage: Path
    job_id: str = ""

    @property
    def settings(self) -> dict[str, str]:
        return {"database_url": self.database_url, "storage_url": f"file://{self.storage}"}


@dataclass
class Load:
    """Clients that ask all the time, and how their requests went.

    Args:
        url: The service's.
        outcomes: Requests by how they went.
    """

    url: str
    outcomes: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, is_over: threading.Event) -> None:
        while not is_over.wait(LOOK_S):
            for path in ("/health", "/api/jobs?limit=5"):
                self._note(path)

    def _note(self, path: str) -> None:
        try:
            status = httpx2.get(self.url + path, timeout=REQUEST_S).status_code
            outcome = {200: "answered", 503: "asked to come back (503)"}.get(status, f"refused ({status})")
        except httpx2.HTTPError as error:
            outcome = f"lost ({type(error).__name__})"
        with self.lock:
            self.outcomes[outcome] += 1

    @property
    def num_lost(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.startswith(("lost", "refused")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sienn-redeploy-") as scratch, postgres_server() as server:
        save_tiny_model(Path(scratch) / "tiny-model")
        hub_home = make_hub_home(Path(scratch) / "hub", Path(scratch) / "tiny-model")
        with server.database() as postgres_url, running_service(Path(scratch) / "home", hub_home) as service:
            variants = [
                Variant("SQLite", f"sqlite:///{scratch}/jobs.db", Path(scratch) / "first"),
                Variant("PostgreSQL", postgres_url, Path(scratch) / "second"),
            ]
            for variant in variants:
                redeploy(service, variant)
                variant.job_id = service.start(service.upload(ROWS), num_epochs=1)
                service.wait_for_end(variant.job_id)
            with under_load(service.url) as load:
                for number in range(options.times):
                    faults += one_more(service, variants, number)
    print(f"requests meanwhile: {dict(load.outcomes.most_common())}")
    print(f"faults: {len(faults)}", *faults, sep="\n")
    return 1 if faults or load.num_lost else 0


@contextmanager
def under_load(url: str) -> Iterator[Load]:
    load, is_over = Load(url), threading.Event()
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(load.run, is_over) for _ in range(NUM_CLIENTS)]
        try:
            yield load
        finally:
            is_over.set()
    for client in clients:
        client.result()


def redeploy(service: Service, variant: Variant) -> None:
    service.on_ray(REDEPLOY.format(settings=variant.settings))


def one_more(service: Service, variants: list[Variant], number: int) -> list[str]:
    """Redeploy, wait until all parts have the new settings, and print the seconds; sentences on those that haven't."""
    variant, other = variants[number % 2], variants[1 - number % 2]
    began = time.monotonic()
    redeploy(service, variant)
    deployed_s = time.monotonic() - began
    while (faults := parts_that_differ(service, variant, other)) and time.monotonic() - began < LONGEST_REDEPLOY_S:
        time.sleep(LOOK_S)
    took_s = time.monotonic() - began
    print(f"{number + 1:2} {variant.database:10} deployed {deployed_s:5.1f} s, all parts {took_s:5.1f} s", flush=True)
    return [f"redeploy {number + 1}: {fault}" for fault in faults]


def parts_that_differ(service: Service, variant: Variant, other: Variant) -> list[str]:
    try:
        health = httpx2.get(f"{service.url}/api/health/services", timeout=REQUEST_S).raise_for_status()
        database = health.json()["services"]["database"]["implementation"]
        if database != variant.database:
            return [f"the tracker's database is {database}, not {variant.database}"]
        storage_url = service.on_ray(TRACKERS_SETTINGS).splitlines()[-1]  # Ray may print before
        if storage_url != variant.settings["storage_url"]:
            return [f"the tracker's storage is {storage_url}"]
        return [*fault_of_uploads(service, variant, other), *fault_of_engine(service, variant)]
    except (httpx2.HTTPError, RefusedError, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]


def fault_of_uploads(service: Service, variant: Variant, other: Variant) -> list[str]:
    rows = json.dumps({"instruction": f"What is {uuid.uuid4()}?", "response": "An id."})
    dataset_id = service.upload(rows)
    if not (variant.storage / "datasets" / dataset_id).exists():
        return [f"dataset {dataset_id} isn't in the new storage"]
    if (other.storage / "datasets" / dataset_id).exists():
        return [f"dataset {dataset_id} is in the old storage"]
    return []


def fault_of_engine(service: Service, variant: Variant) -> list[str]:
    body = {"job_id": variant.job_id, "prompt": PROMPT, "max_new_tokens": 10, "do_sample": False}
    answer = httpx2.post(f"{service.url}/api/test-model", json=body, timeout=REQUEST_S)
    return [] if answer.is_success else [f"the adapter doesn't answer: {answer.status_code} {answer.text[:200]}"]


if __name__ == "__main__":
    sys.exit(main())
