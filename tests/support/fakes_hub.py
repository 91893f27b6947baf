"""A model hub on a local port, which answers with the status codes and headers of the real one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """What the hub knows.

    Attributes:
        files: Names and contents of each model's files.
        errors: Status and `X-Error-Code` that are answered for a model, whatever is asked.
        num_requests: Requests so far.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.errors: dict[str, tuple[int, str]] = {}
        self.num_requests = 0

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        self.num_requests += 1
        for model_id, (status, code) in self.errors.items():
            if model_id in path:
                return status, {"X-Error-Code": code}, b""
        for model_id, files in self.files.items():
            if path == f"/api/models/{model_id}":
                siblings = [{"rfilename": name} for name in files]
                return 200, {}, json.dumps({"id": model_id, "siblings": siblings}).encode()
            name = path.removeprefix(f"/{model_id}/resolve/main/")
            if name in files:
                return 200, {"ETag": '"0123"', "X-Repo-Commit": "1" * 40}, files[name]
            if path.startswith(f"/{model_id}/"):
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 404, {"X-Error-Code": "RepoNotFound"}, b""


@contextmanager
def serving(hub: FakeHub) -> Iterator[str]:
    """Serve a hub; gives its endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path.split("?")[0])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
