from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import pytest
from typing_extensions import Buffer

from sienn_ray.export.archive import write_zip
from sienn_ray.export.sink import Sink, Write


class OneWay:
    """A file that can't be gone back in, as one on the network."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: Buffer, /) -> int:
        self.content += bytes(data)
        return memoryview(data).nbytes

    def tell(self) -> int:
        return len(self.content)

    def flush(self) -> None:
        pass


def writer(*texts: bytes) -> Write:
    def write(file: Sink) -> Iterator[int]:
        start = file.tell()
        for text in texts:
            yield file.write(memoryview(text))
        assert file.tell() - start == sum(map(len, texts))

    return write


def test_files_are_archived_while_they_are_made() -> None:
    file = OneWay()
    files = {
        "model.gguf": writer(b"a" * 1000, b"b"),
        "Modelfile": writer(b"FROM ", b"model"),
        "install.sh": writer(b""),
    }
    steps = write_zip(file, files)
    assert next(steps) == 1000
    assert file.content.endswith(b"a" * 1000)
    assert list(steps) == [1, 5, 5, 0]
    with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == list(files)
        assert archive.read("Modelfile") == b"FROM model"
        stored = archive.getinfo("model.gguf")
        assert (stored.compress_type, stored.file_size, stored.compress_size) == (zipfile.ZIP_STORED, 1001, 1001)
        assert [archive.getinfo(name).external_attr >> 16 for name in files] == [0o644, 0o644, 0o755]


def test_what_a_writer_raises_comes_through() -> None:
    def broken(file: Sink) -> Iterator[int]:
        yield file.write(b"half")
        raise OSError("no room")

    file = OneWay()
    with pytest.raises(OSError, match="no room"):
        list(write_zip(file, {"a": broken}))
