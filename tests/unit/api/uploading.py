"""Uploads as tests send them, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from sienn_ray.storage import Storage
from tests.support.fakes_api import multipart_type
from tests.support.in_process_tracker import InProcessTracker

UPLOAD = "/api/upload-dataset"
VALIDATE = "/api/validate-dataset"
CSV = b'instruction,response\n"What is Python?",A language.\nExplain LoRA,A technique.\n'


def send(
    client: TestClient, body: bytes | Iterator[bytes], content_type: str | None = None, path: str = UPLOAD
) -> Response:
    """Post a body exactly as given."""
    return client.post(path, content=body, headers={"content-type": content_type or multipart_type()})


def upload(client: TestClient, content: bytes, filename: str = "rows.csv", path: str = UPLOAD) -> Response:
    """Post a file as an honest client does."""
    return client.post(path, files={"file": (filename, content)})


def stored(storage: Storage) -> set[str]:
    """Everything under datasets/: folders, files, and files that are being written."""
    folder = Path(storage.root) / "datasets"
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def is_untouched(storage: Storage, tracker: InProcessTracker) -> bool:
    """Whether there is neither anything in storage nor a record in the tracker."""
    return tracker.num_records == 0 and stored(storage) == set()


@dataclass
class Answer:
    """What an application answered."""

    status: int
    body: Any


async def post(app: ASGIApp, messages: AsyncIterator[Message], path: str = UPLOAD) -> Answer:
    """Post a body message by message, straight to the application."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", multipart_type().encode())],
    }
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    await app(scope, lambda: anext(messages), keep)
    content = b"".join(message.get("body", b"") for message in sent)
    return Answer(sent[0]["status"], json.loads(content))


async def messages_of(chunks: Iterable[bytes]) -> AsyncIterator[Message]:
    """A body that comes in these chunks; then the client waits for the answer."""
    for chunk in chunks:
        yield {"type": "http.request", "body": chunk, "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}
    await asyncio.Event().wait()
