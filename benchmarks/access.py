"""Times status requests and answers with and without authentication and limits, in one process without Ray.

The application is called directly, over a tracker in the same process, so what is left out (Serve's proxy, sockets, a
call to the tracker's process) would only make the share smaller that is looked for.

    python benchmarks/access.py [--rounds 9] [--requests 300] [--cpu]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sienn_ray.api.app import create_app
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends

ADMIN_KEY = "an-admin-s-key-0123456789-0123456789"


STATUS = ("GET", "/api/training-status/job-1", b"")
ANSWER = ("POST", "/api/test-model", b'{"job_id": "job-2", "prompt": "What is LoRA?"}')
Request = tuple[str, str, bytes]


async def ask(
    app: Any,
    headers: list[tuple[bytes, bytes]],
    request: Request = STATUS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Milliseconds of one request."""
    method, path, body = request
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), *headers],
        "client": ("10.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    statuses: list[int] = []

    is_sent = False

    async def receive() -> dict[str, Any]:
        nonlocal is_sent
        if is_sent:
            await asyncio.Event().wait()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    began = clock()
    await app(scope, receive, send)
    took_ms = 1000 * (clock() - began)
    assert statuses == [200], statuses
    return took_ms


def application(home: Path, **fields: Any) -> Any:
    backends = fake_backends(Settings(env="test", home=home, **fields))
    tracker: Any = backends.tracker
    tracker.put(dataset_record(), job_record(), job_record(id="job-2", status=JobStatus.COMPLETED))
    return create_app(backends)


async def key_of(app: Any, **limits: int) -> bytes:
    """A user's key, made by the service itself."""
    from httpx2 import ASGITransport, AsyncClient

    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://127.0.0.1") as client:
        body = {"name": "benchmark", "owner": "admin", "rate_limits": "1000000/minute;100000000/hour", **limits}
        created = await client.post("/api/keys", json=body, headers={"X-API-Key": ADMIN_KEY})
        return str(created.json()["key"]).encode()


async def token_and_cookie_of(app: Any, key: bytes) -> tuple[bytes, bytes]:
    """An access token for a key, and the cookie of a session."""
    from httpx2 import ASGITransport, AsyncClient

    text = key.decode()
    form = {"grant_type": "client_credentials", "client_id": text.split("_")[1], "client_secret": text}
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://127.0.0.1") as client:
        token = (await client.post("/api/auth/token", data=form)).json()["access_token"]
        begun = await client.post("/api/auth/session", headers={"X-API-Key": text})
        return str(token).encode(), begun.headers["set-cookie"].partition(";")[0].encode()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=300, help="in each round, of each kind")
    parser.add_argument("--cpu", action="store_true", help="CPU time of all threads, for a machine that others use")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        plain = application(Path(folder) / "plain")
        guarded = application(Path(folder) / "guarded", auth="on", admin_key=ADMIN_KEY)
        key = await key_of(guarded)
        token, cookie = await token_and_cookie_of(guarded, key)
        limited = await key_of(guarded, tokens_per_minute=10**12, max_open_answers=1000)
        with_key = [(b"authorization", b"Bearer " + key)]
        kinds: dict[str, tuple[Any, list[tuple[bytes, bytes]], Request]] = {
            "status": (plain, [], STATUS),
            "status, a key and its limits": (guarded, with_key, STATUS),
            "status, a token and its limits": (guarded, [(b"authorization", b"Bearer " + token)], STATUS),
            "status, a cookie and its limits": (guarded, [(b"cookie", cookie)], STATUS),
            "answer": (plain, [], ANSWER),
            "answer, a key and its limits": (guarded, with_key, ANSWER),
            "answer, and limits of tokens": (guarded, [(b"authorization", b"Bearer " + limited)], ANSWER),
        }
        medians: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(options.rounds):
            for name, (app, headers, request) in kinds.items():
                times = [await ask(app, headers, request, clock) for _ in range(options.requests)]
                medians[name].append(statistics.median(times))
    middle = {name: statistics.median(found) for name, found in medians.items()}
    for name, found in medians.items():
        added = 100 * (middle[name] / middle[name.partition(",")[0]] - 1)
        rounds = ", ".join(f"{each:.3f}" for each in found)
        print(f"{name:30} {middle[name]:.3f} ms  {added:+.1f}%  (rounds: {rounds})")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
