"""A GGUF file, streamed tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from sienn_ray.export.gguf.ggml import Array, row_bytes
from sienn_ray.export.sink import Sink


class GgufStream(gguf.GGUFWriter):  # type: ignore[misc]  # the package is untyped
    """The package's writer, into a file that is open already.

    Args:
        target: Where to; it needs `write`, `tell` and `flush`.
        architecture: GGUF's name of the model's architecture.
    """

    def __init__(self, target: Sink, architecture: str) -> None:
        super().__init__(None, architecture)
        self._target = target

    def open_output_file(self, path: Path | None = None) -> None:  # noqa: ARG002  (the package's signature)
        """Take the open file."""
        state: Any = self.state  # type: ignore[has-type]
        if state is gguf.gguf_writer.WriterState.NO_FILE:
            self.fout = [self._target]
            self.state = gguf.gguf_writer.WriterState.EMPTY

    def announce(self, name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> None:
        """Say that a tensor will come; all of them have to be announced before `begin`."""
        num_rows = int(np.prod(shape[:-1], dtype=np.int64))
        size_bytes = num_rows * row_bytes(kind, shape[-1])
        self.add_tensor_info(name, shape, np.dtype(np.float32), size_bytes, raw_dtype=kind)

    def begin(self) -> None:
        """Write all that stands before the tensors."""
        self.write_header_to_file()
        self.write_kv_data_to_file()
        self.write_ti_data_to_file()
        # Tensors begin at a multiple of the alignment.
        self.write_padding(self._target, self._target.tell())

    def write_tensor(self, pieces: Iterable[Array]) -> Iterator[int]:
        """Write the next tensor, in the order in which they were announced; yields the bytes of each piece.

        Args:
            pieces: Its bytes.
        """
        for piece in pieces:
            flat: Any = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
            data = memoryview(flat)
            self._target.write(data)
            yield len(data)
        self.write_padding(self._target, self._target.tell())
