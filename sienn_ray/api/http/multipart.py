"""Receive one file from a multipart body while it arrives, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import IO, Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from sienn_ray.api.http.form_fields import FormFields
from sienn_ray.api.http.threads import run_to_end
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidInputError, MediaTypeError, SiennError, UploadTooLargeError

FIELD = "file"
MAX_FILENAME_CHARS = 255
# What else may be in a body: boundaries, headers, other fields of the form.
ENVELOPE_BYTES = 64 * 1024
_WRITE_BYTES = 1024 * 1024
# A file name of 4,000 characters may have 16,000 bytes; it is cut later.
_MAX_HEADER_BYTES = 32 * 1024
_MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
_WAY_OUT = f"send the file as `curl -F {FIELD}=@dataset.csv` does"


@dataclass(frozen=True)
class ReceivedFile:
    """A file that was written to its sink.

    Args:
        filename: Its name, cleaned.
        size_bytes: Its size.
        sha256: Its hash, in hex.
        fields: Values of the form's known fields that came with it.
        remarks: Sentences about fields that aren't known.
    """

    filename: str
    size_bytes: int
    sha256: str
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileLimit:
    """The largest file that is taken, and the error of a larger one."""

    max_bytes: int
    error: Callable[[], SiennError]


async def receive_file(
    body: AsyncIterator[bytes],
    boundary: bytes,
    sink: IO[bytes],
    *,
    executor: Executor,
    limit: FileLimit,
    fields: Collection[str] = (),
) -> ReceivedFile:
    """Write the body's part named `file` to a sink, hashing it on the way.

    Args:
        body: The chunks.
        boundary: What is between the body's parts, see `boundary_of`.
        sink: Where the file goes; nothing is written to it before the file's part has begun.
        executor: Threads that write.
        limit: The largest file that is taken.
        fields: Names of other fields that are kept.

    Raises:
        InvalidInputError: The body is malformed, is cut off, or has no such part with a file name.
        SiennError: The file is larger than the limit, which says so.
    """
    receiver = _Receiver(boundary, limit, fields)
    async for chunk in body:
        receiver.feed(chunk)
        if receiver.num_pending >= _WRITE_BYTES:
            await run_to_end(executor, receiver.flush, sink)
    receiver.check_whole()
    await run_to_end(executor, receiver.flush, sink)
    return receiver.received


def boundary_of(content_type: str) -> bytes:
    """Return the boundary between a form's parts.

    Raises:
        MediaTypeError: The body is no form.
        InvalidInputError: There is no boundary, or it is too long.
    """
    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    if kind != b"multipart/form-data":
        raise MediaTypeError(f"Content-Type {shown(content_type)} is not multipart/form-data; {_WAY_OUT}")
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidInputError(f"Content-Type {shown(content_type)} names no boundary; {_WAY_OUT}")
    if len(boundary) > _MAX_BOUNDARY_BYTES:
        raise InvalidInputError(
            f"the multipart boundary has {len(boundary)} bytes; at most {_MAX_BOUNDARY_BYTES} will do"
        )
    return boundary


class _Receiver:
    """Callbacks for the parser; keeps what was parsed until it is flushed."""

    def __init__(self, boundary: bytes, limit: FileLimit, fields: Collection[str]) -> None:
        self._limit = limit
        self._fields = FormFields(fields)
        self._digest = hashlib.sha256()
        self._body_bytes = 0
        self._size_bytes = 0
        self._pending: list[bytes] = []
        self.num_pending = 0
        self._filename: str | None = None
        self._in_file = False
        self._ended = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        callbacks: Any = {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(boundary, callbacks, max_header_size=_MAX_HEADER_BYTES)

    def feed(self, chunk: bytes) -> None:
        """Parse a piece of the body."""
        self._body_bytes += len(chunk)
        if self._body_bytes > self._limit.max_bytes + ENVELOPE_BYTES:
            raise self._limit.error()
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise InvalidInputError(f"the multipart body can't be parsed: {error}") from error

    def flush(self, sink: IO[bytes]) -> None:
        """Write what was parsed since the last time."""
        data = b"".join(self._pending)
        self._pending.clear()
        self.num_pending = 0
        self._digest.update(data)
        sink.write(data)

    @property
    def received(self) -> ReceivedFile:
        """What was received and flushed."""
        return ReceivedFile(
            self._filename or "",
            self._size_bytes,
            self._digest.hexdigest(),
            fields=self._fields.values,
            remarks=self._fields.remarks,
        )

    def check_whole(self) -> None:
        """Refuse a body that has ended too early, or without a file."""
        if self._filename is None:
            raise InvalidInputError(
                f"the body has no part named '{FIELD}' with a file name; send `-F {FIELD}=@dataset.csv`"
            )
        if not self._ended:
            raise InvalidInputError("the body ended before its closing boundary; send the file again")

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._in_file = False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._extend(self._header_name, data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._extend(self._header_value, data[start:end])

    def _extend(self, header: bytearray, piece: bytes) -> None:
        if len(header) + len(piece) > _MAX_HEADER_BYTES:
            raise InvalidInputError(f"a part's header is longer than {_MAX_HEADER_BYTES} bytes; shorten the file name")
        header += piece

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        is_file = options.get(b"name") == FIELD.encode() and b"filename" in options
        if is_file and self._filename is not None:
            raise InvalidInputError(f"the body has more than one part named '{FIELD}'; upload one file at a time")
        if is_file:
            self._filename = clean_filename(options[b"filename"].decode("utf-8", "replace"))
            self._in_file = True
        else:
            self._fields.begin(options.get(b"name", b"").decode("utf-8", "replace"))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_file:
            self._fields.add(data[start:end])
            return
        self._size_bytes += end - start
        if self._size_bytes > self._limit.max_bytes:
            raise self._limit.error()
        self._pending.append(data[start:end])
        self.num_pending += end - start

    def _on_part_end(self) -> None:
        if not self._in_file:
            self._fields.end()
        self._in_file = False

    def _on_end(self) -> None:
        self._ended = True


def too_large(max_bytes: int) -> UploadTooLargeError:
    """The error of a file over the limit."""
    return UploadTooLargeError(
        f"the file has more than {max_bytes} bytes (SIENN_MAX_UPLOAD_BYTES); split it, or have the limit raised"
    )


def clean_filename(name: str) -> str:
    """A user's file name as it is shown: without folders and control characters, of bounded length."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in last if character.isprintable())
    stem, dot, extension = printable.rpartition(".")
    if len(printable) > MAX_FILENAME_CHARS and dot and len(extension) < MAX_FILENAME_CHARS:
        return f"{stem[: MAX_FILENAME_CHARS - len(extension) - 1]}.{extension}"
    return printable[:MAX_FILENAME_CHARS]
