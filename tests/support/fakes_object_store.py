"""An object store in memory: like S3's, its objects appear when their upload is completed, and never before."""

from __future__ import annotations

import io
import uuid
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.spec import AbstractBufferedFile


class FakeObjectStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Reads like fsspec's memory, which however shows a file as soon as it is opened."""

    protocol = "fake-objects"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("fake-objects://")))

    # What signing a link gives, or raises; None is a store that has no such links.
    signing: ClassVar[str | Exception | None] = None

    def sign(self, path: str, expiration: int = 100, **options: Any) -> str:
        if self.signing is None:
            raise NotImplementedError
        if isinstance(self.signing, Exception):
            raise self.signing
        return f"{self.signing}/{path}?expires={expiration}"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb":
            return _Upload(self, path, mode)
        return io.BytesIO(super()._open(path, mode, **options).getvalue())  # every reader has a position of its own


class _Upload(AbstractBufferedFile):  # type: ignore[misc]
    """A multipart upload, as s3fs and gcsfs do it."""

    def _initiate_upload(self) -> None:
        self._parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self._parts.append(self.buffer.getvalue())
        if final:
            MemoryFile(self.fs, self.path, b"".join(self._parts)).commit()
        return True

    def discard(self) -> None:
        self._parts = []
        self.buffer: Any = None


def fake_object_store_url() -> str:
    """URL of a new, empty part of the store."""
    fsspec.register_implementation("fake-objects", FakeObjectStore, clobber=True)
    return f"fake-objects://bucket-{uuid.uuid4().hex}/sienn"
