"""A client of Ray's job API against servers that misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ray.exceptions import AuthenticationError

from sienn_ray.jobs.supervision.deadline import DeadlineThread
from sienn_ray.jobs.supervision.ray_job_client import JobApiTimeoutError, RayJobClient, connect


class _Dashboard(ThreadingHTTPServer):
    """Says its version, and accepts all other requests without an answer until it is released."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.released = threading.Event()


class _Requests(BaseHTTPRequestHandler):
    server: _Dashboard

    def do_GET(self) -> None:
        if self.path != "/api/version":
            self.server.released.wait(20)
            return
        body = json.dumps({"ray_version": "2.9.0"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Dashboard]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    server = _Dashboard()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_dashboard_that_never_answers_has_a_deadline(dashboard: _Dashboard) -> None:
    client = RayJobClient(connect(0.05, f"http://127.0.0.1:{dashboard.server_port}"))
    with pytest.raises(JobApiTimeoutError, match=r"no answer within 0\.05 s"):
        client.call(lambda api: api.get_job_info("x"))


@pytest.mark.parametrize("call", ["stop_job", "submit_job"])
def test_changes_have_the_deadline_too(dashboard: _Dashboard, call: str) -> None:
    client = RayJobClient(connect(0.05, f"http://127.0.0.1:{dashboard.server_port}"))
    with pytest.raises(JobApiTimeoutError):
        client.call(lambda api: api.stop_job("x") if call == "stop_job" else api.submit_job(entrypoint="true"))


def test_rejected_token_is_trouble_with_the_connection() -> None:
    def refuse(_: object) -> None:
        raise AuthenticationError("the token is another one")

    with pytest.raises(ConnectionError, match="token"):
        RayJobClient(object()).call(refuse)


def test_function_that_hangs_holds_one_thread() -> None:
    released, calls = threading.Event(), []

    def hang() -> str:
        calls.append(1)
        released.wait(20)
        return "late"

    thread = DeadlineThread("hanging")
    for _ in range(3):
        with pytest.raises(TimeoutError, match="no answer within 0 s"):
            thread.run(hang, 0)
    assert len(calls) <= 1
    released.set()
    assert thread.run(lambda: "new", 20) in {"late", "new"}


def test_error_of_the_function_is_raised() -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        DeadlineThread("failing").run(fail, 20)
