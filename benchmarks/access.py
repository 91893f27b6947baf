"""Times a status request with and without authentication and rate limits, in one process without Ray.

The application is called directly, over a tracker in the same process, so what is left out (Serve's proxy, sockets, a
call to the tracker's process) would only make the share smaller that is looked for.

    python benchmarks/access.py [--rounds 9] [--requests 300]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends

ADMIN_KEY = "an-admin-s-key-0123456789-0123456789"


async def ask(app: Any, headers: list[tuple[bytes, bytes]]) -> float:
    """Milliseconds of one request."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/training-status/job-1",
        "raw_path": b"/api/training-status/job-1",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *headers],
        "client": ("10.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    began = time.perf_counter()
    await app(scope, receive, send)
    took_ms = 1000 * (time.perf_counter() - began)
    assert statuses == [200], statuses
    return took_ms


def application(home: Path, **fields: Any) -> Any:
    backends = fake_backends(Settings(env="test", home=home, **fields))
    tracker: Any = backends.tracker
    tracker.put(dataset_record(), job_record())
    return create_app(backends)


async def key_of(app: Any) -> bytes:
    """A user's key, made by the service itself."""
    from httpx2 import ASGITransport, AsyncClient

    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://127.0.0.1") as client:
        body = {"name": "benchmark", "owner": "admin", "rate_limits": "1000000/minute;100000000/hour"}
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain = application(Path(folder) / "plain")
        guarded = application(Path(folder) / "guarded", auth="on", admin_key=ADMIN_KEY)
        key = await key_of(guarded)
        token, cookie = await token_and_cookie_of(guarded, key)
        kinds: dict[str, tuple[Any, list[tuple[bytes, bytes]]]] = {
            "neither": (plain, []),
            "a key and its limits": (guarded, [(b"authorization", b"Bearer " + key)]),
            "a token and its limits": (guarded, [(b"authorization", b"Bearer " + token)]),
            "a cookie and its limits": (guarded, [(b"cookie", cookie)]),
        }
        medians: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(options.rounds):
            for name, (app, headers) in kinds.items():
                medians[name].append(statistics.median([await ask(app, headers) for _ in range(options.requests)]))
    first = statistics.median(medians["neither"])
    for name, found in medians.items():
        median = statistics.median(found)
        rounds = ", ".join(f"{each:.3f}" for each in found)
        print(f"{name:24} {median:.3f} ms, {100 * (median / first - 1):+.1f}%  (rounds: {rounds})")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
