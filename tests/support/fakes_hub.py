"""A model hub on a local port, which answers with the status codes and headers of the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "1" * 40


class FakeHub:
    """What the hub knows.

    Attributes:
        files: Names and contents of each model's files.
        commits: Commits of each model's branches and tags; `main` is at `COMMIT` unless it says otherwise.
        errors: Status and `X-Error-Code` that are answered for a model, whatever is asked.
        sizes: Bytes that files are said to have, by name, instead of those that they have.
        outages: Statuses of the next answers, whatever is asked.
        datasets: Names and contents of each dataset's files, beside those of models.
        cards: Metadata of the cards of datasets.
        tokens: `Authorization` of each request, None without one.
        num_requests: Requests so far.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, dict[str, str]] = {}
        self.errors: dict[str, tuple[int, str]] = {}
        self.sizes: dict[str, int] = {}
        self.outages: list[int] = []
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.tokens: list[str | None] = []
        self.num_requests = 0

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        self.num_requests += 1
        if self.outages:
            return self.outages.pop(0), {}, b""
        for model_id, (status, code) in self.errors.items():
            if model_id in path:
                return status, {"X-Error-Code": code}, b""
        for dataset_id, files in self.datasets.items():
            if path == f"/api/datasets/{dataset_id}" or path.startswith(f"/api/datasets/{dataset_id}/revision/"):
                status, headers, body = self._info(dataset_id, files, path)
                card = {"cardData": self.cards.get(dataset_id), "private": False, "disabled": False, "gated": False}
                return status, headers, json.dumps({**json.loads(body), **card}).encode() if body else body
            if path.startswith(f"/datasets/{dataset_id}/resolve/"):
                return self._file(dataset_id, files, path.removeprefix(f"/datasets/{dataset_id}/resolve/"))
        for model_id, files in self.files.items():
            if path == f"/api/models/{model_id}" or path.startswith(f"/api/models/{model_id}/revision/"):
                return self._info(model_id, files, path)
            if path.startswith(f"/api/models/{model_id}/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return 200, {}, json.dumps(tree).encode()
            if path.startswith(f"/{model_id}/resolve/"):
                return self._file(model_id, files, path.removeprefix(f"/{model_id}/resolve/"))
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _info(self, repo_id: str, files: dict[str, bytes], path: str) -> tuple[int, dict[str, str], bytes]:
        commit = self._commit(repo_id, unquote(path.partition("/revision/")[2]) or "main")
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        sizes = {name: len(content) for name, content in files.items()} | self.sizes
        siblings = [{"rfilename": name, "size": sizes[name]} for name in files]
        return 200, {}, json.dumps({"id": repo_id, "sha": commit, "siblings": siblings}).encode()

    def _file(self, repo_id: str, files: dict[str, bytes], place: str) -> tuple[int, dict[str, str], bytes]:
        revision, _, name = place.partition("/")
        commit = self._commit(repo_id, revision)
        if commit is None or unquote(name) not in files:
            return 404, {"X-Error-Code": "EntryNotFound" if commit else "RevisionNotFound"}, b""
        content = files[unquote(name)]
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}, content

    def _commit(self, model_id: str, revision: str) -> str | None:
        commits = {"main": COMMIT, **self.commits.get(model_id, {})}
        return revision if revision in commits.values() else commits.get(revision)


@contextmanager
def serving(hub: FakeHub) -> Iterator[str]:
    """Serve a hub; gives its endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.tokens.append(self.headers.get("Authorization"))
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
