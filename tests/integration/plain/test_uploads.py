"""Uploads that hurt, over real HTTP through Serve's proxy: huge, broken off, and two hundred at once."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from sienn_ray.storage import paths_below
from tests.integration.service import ROWS, Service, wait_for

MIB = 1024 * 1024
HEADROOM_MIB = 512
BOUNDARY = "0e1d2c3b4a"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n'
    "Content-Type: application/jsonl\r\n\r\n"
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
ROW = json.dumps({"instruction": "Why? " + "x" * 8_000, "response": "Because. " + "y" * 8_000}).encode() + b"\n"
MIB_OF_ROWS = ROW * (MIB // len(ROW))


@dataclass
class Watch:
    """What a service did while something went on."""

    peak_mib: dict[str, float] = field(default_factory=dict)
    health_s: list[float] = field(default_factory=list)

    @property
    def beyond_headroom(self) -> dict[str, float]:
        """Processes that grew by more than they may."""
        return {name: growth for name, growth in self.peak_mib.items() if growth > HEADROOM_MIB}


@contextlib.contextmanager
def watching(service: Service) -> Iterator[Watch]:
    """Measure the memory that each process of the service adds, and ask for /health all the time."""
    watch, stop = Watch(), threading.Event()
    processes = {f"{p.cmdline()[0]} {p.pid}": p for p in service.processes("ray::")}
    before = {name: process.memory_info().rss / MIB for name, process in processes.items()}

    def measure() -> None:
        while not stop.wait(0.05):
            for name, process in processes.items():
                with contextlib.suppress(psutil.Error):
                    growth = process.memory_info().rss / MIB - before[name]
                    watch.peak_mib[name] = max(watch.peak_mib.get(name, 0.0), growth)

    def ask() -> None:
        while not stop.wait(0.2):
            began = time.monotonic()
            httpx2.get(service.url + "/health", timeout=30.0).raise_for_status()
            watch.health_s.append(time.monotonic() - began)

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(measure), threads.submit(ask)]
        try:
            yield watch
        finally:
            stop.set()
        for thread in running:
            thread.result()


def connection(service: Service) -> http.client.HTTPConnection:
    address = urlsplit(service.url)
    assert address.hostname is not None
    return http.client.HTTPConnection(address.hostname, address.port, timeout=600)


def begin_upload(service: Service, content_length: int) -> http.client.HTTPConnection:
    """Send the head of an upload of `content_length` bytes of file; the caller closes it."""
    client = connection(service)
    client.putrequest("POST", "/api/upload-dataset")
    client.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    client.putheader("Content-Length", str(len(HEAD) + content_length + len(TAIL)))
    client.endheaders(HEAD)
    return client


def stored_datasets(service: Service) -> set[str]:
    """Folders under datasets/, and files that are being written anywhere below it."""
    folder = Path(service.environment["SIENN_HOME"]) / "storage" / "datasets"
    if not folder.is_dir():
        return set()
    being_written = {str(path) for path in paths_below(folder) if path.suffix == ".partial"}
    return {path.name for path in folder.iterdir()} | being_written


def known_datasets(service: Service) -> set[str]:
    return {dataset["id"] for dataset in service.get("/api/datasets")["datasets"]}


@pytest.mark.slow
def test_two_gibibytes_pass_through_half_a_gibibyte(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    num_mib = 2048
    upload = contextlib.closing(begin_upload(service, num_mib * len(MIB_OF_ROWS)))
    with watching(service) as watch, upload as client:
        for _ in range(num_mib):
            client.send(MIB_OF_ROWS)
        client.send(TAIL)
        response = client.getresponse()
        dataset = json.loads(response.read())
    assert response.status == 201, dataset
    assert dataset["num_rows"] == num_mib * (MIB // len(ROW))
    assert dataset["size_bytes"] == num_mib * len(MIB_OF_ROWS)
    largest = sorted(watch.peak_mib.items(), key=lambda item: -item[1])[:3]
    with capsys.disabled():
        sizes = ", ".join(f"{name} +{growth:.0f} MiB" for name, growth in largest)
        print(f"\n2 GiB upload: peak memory added {sizes}; slowest /health {max(watch.health_s):.2f} s")
    assert watch.beyond_headroom == {}
    assert len(watch.health_s) > 10
    httpx2.delete(f"{service.url}/api/datasets/{dataset['dataset_id']}", timeout=60.0).raise_for_status()
    wait_for(lambda: dataset["dataset_id"] not in stored_datasets(service), "the end of its files", 30.0)


def test_a_client_that_stops_half_way_leaves_nothing_behind(service: Service) -> None:
    service.upload(ROWS)
    before = stored_datasets(service)
    clients = [begin_upload(service, 64 * MIB) for _ in range(5)]
    for client in clients:
        client.send(MIB_OF_ROWS * 4)
    wait_for(lambda: stored_datasets(service) != before, "the uploads' first bytes in storage", 30.0)
    for client in clients:
        # As a process that is killed does it: a reset, not an orderly end.
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.close()
    wait_for(lambda: stored_datasets(service) == before, "storage as it was", 60.0)
    assert known_datasets(service) == before


def test_two_hundred_uploads_at_once(service: Service) -> None:
    num_uploads = 200
    rows = [
        json.dumps({"instruction": f"What is {n}?", "response": f"It is {n}."}).encode() for n in range(num_uploads)
    ]
    before = stored_datasets(service)

    def upload(number: int) -> httpx2.Response:
        # Every fourth one is broken, each in another row.
        content = rows[number] + (b"\n{broken" if number % 4 == 3 else b"\n" + rows[0]) + b"\n"
        files = {"file": (f"rows-{number}.jsonl", content)}
        return httpx2.post(service.url + "/api/upload-dataset", files=files, timeout=300.0)

    with watching(service) as watch, ThreadPoolExecutor(num_uploads) as threads:
        responses = list(threads.map(upload, range(num_uploads)))
    statuses = [response.status_code for response in responses]
    assert statuses == [400 if number % 4 == 3 else 201 for number in range(num_uploads)]
    assert all("line 2" in response.json()["detail"] for response in responses if response.status_code == 400)
    taken = {response.json()["dataset_id"] for response in responses if response.status_code == 201}
    assert stored_datasets(service) - before == taken
    assert taken <= known_datasets(service)
    assert watch.beyond_headroom == {}
    assert watch.health_s


@pytest.mark.slow
def test_a_slow_download_waits_where_it_comes_from(service: Service) -> None:
    num_mib = 256
    with contextlib.closing(begin_upload(service, num_mib * len(MIB_OF_ROWS))) as client:
        for _ in range(num_mib):
            client.send(MIB_OF_ROWS)
        client.send(TAIL)
        dataset = json.loads(client.getresponse().read())
    path = f"/api/datasets/{dataset['dataset_id']}"
    with watching(service) as watch, contextlib.closing(connection(service)) as slow:
        slow.request("GET", f"{path}/download")
        response = slow.getresponse()
        digest = hashlib.sha256(response.read(MIB))
        # Long enough for all of it to have come over at full speed.
        wait_for(lambda: len(watch.health_s) > 50, "time to fill the queues", 60.0)
        peaks = dict(watch.peak_mib)
        while chunk := response.read(MIB):
            digest.update(chunk)
    assert {name: growth for name, growth in peaks.items() if growth > num_mib / 4} == {}
    assert digest.hexdigest() == dataset["sha256"]
    httpx2.delete(service.url + path, timeout=60.0).raise_for_status()
    wait_for(lambda: dataset["dataset_id"] not in stored_datasets(service), "the end of its files", 30.0)


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(service: Service) -> None:
    before = stored_datasets(service)
    with contextlib.closing(begin_upload(service, 1024 * 1024 * MIB)) as client:
        response = client.getresponse()
        answer = json.loads(response.read())
    assert (response.status, answer["status_code"]) == (413, 413)
    assert "SIENN_MAX_UPLOAD_BYTES" in answer["detail"]
    assert stored_datasets(service) == before


def test_a_client_that_sends_on_still_reads_the_refusal(service: Service) -> None:
    """A connection that is closed at once would be reset, and the answer lost."""
    with contextlib.closing(connection(service)) as client:
        client.putrequest("POST", "/api/upload-dataset")
        client.putheader("Content-Type", "text/plain")
        client.putheader("Content-Length", str(64 * MIB))
        client.endheaders()
        for _ in range(64):
            client.send(b"x" * MIB)
        response = client.getresponse()
        answer = json.loads(response.read())
    assert (response.status, answer["status_code"]) == (415, 415)
