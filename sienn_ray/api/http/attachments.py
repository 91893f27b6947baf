"""Send a stored file as a download, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from starlette.responses import StreamingResponse

from sienn_ray.errors import ArtifactError
from sienn_ray.storage import Storage

CHUNK_BYTES = 256 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._()-]")


def send_stored_file(storage: Storage, key: str, *, filename: str, size_bytes: int, sha256: str) -> StreamingResponse:
    """Respond with a stored file's bytes. The file is opened here, so call this in a thread.

    Args:
        storage: Where the file is.
        key: Its key.
        filename: Under which name a browser saves it.
        size_bytes: Its size.
        sha256: Its hash in hex, which becomes the entity tag.

    Raises:
        ArtifactError: The file is missing, or not of this size.
    """
    file = storage.reading(key)
    actual_bytes = storage.fs.size(storage.path(key))
    if actual_bytes != size_bytes:
        file.close()
        raise ArtifactError(
            f"{storage.location(key)} has {actual_bytes} bytes and should have {size_bytes}; the file was altered, "
            "upload it again"
        )
    headers = {
        "Content-Length": str(size_bytes),
        "Content-Disposition": content_disposition(filename),
        "ETag": f'"{sha256}"',
        # No browser is to take a user's file for a page of this service.
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(_chunks(file), media_type="application/octet-stream", headers=headers)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def content_disposition(filename: str) -> str:
    """The header that names a download (RFC 6266): in ASCII for old programs, in UTF-8 (RFC 8187) for all others."""
    name = filename or "dataset"
    ascii_name, encoded_name = _UNSAFE.sub("_", name), quote(name, safe="", errors="replace")
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{encoded_name}"
