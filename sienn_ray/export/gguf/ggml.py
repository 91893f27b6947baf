"""Quantize with llama.cpp's own code, out of the shared object of the package `xllamacpp`.

`ggml_quantize_chunk` takes rows in float32, so a matrix is quantized as it comes and no file is needed in between, as
llama.cpp's own program for it would.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from sienn_ray.errors import ExportError
from sienn_ray.export.gguf.llama_cpp_package import INSTALL_COMMAND, MODULE, shared_object

if TYPE_CHECKING:
    import torch

_MAX_THREADS = 8
# Rows are quantized in pieces of about this many values: 16 MiB in float32.
_CHUNK_VALUES = 4 * 1024 * 1024
# What the package `gguf` writes by itself.
PLAIN = (
    GGMLQuantizationType.F32,
    GGMLQuantizationType.F16,
    GGMLQuantizationType.BF16,
    GGMLQuantizationType.Q8_0,
)

Array = npt.NDArray[Any]


@cache
def _library() -> Any:
    path = shared_object()
    if path is None:
        raise ExportError(f"K-quants need llama.cpp's code; add it with `{INSTALL_COMMAND}`")
    try:
        library = ctypes.CDLL(str(path))
        quantize = library.ggml_quantize_chunk
        library.ggml_quantize_init.argtypes = [ctypes.c_int]
    except (OSError, AttributeError) as error:
        raise ExportError(f"{MODULE} can't be used ({error}); install another version of it") from error
    quantize.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    # Type, values, target, first value, rows, values in a row, importance matrix.
    quantize.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    return library


def row_bytes(kind: GGMLQuantizationType, row_size: int) -> int:
    """Bytes of a row."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return int(row_size // block * block_bytes)


def quantized(tensor: torch.Tensor, kind: GGMLQuantizationType) -> Iterator[Array]:
    """The bytes of a tensor, in pieces.

    Args:
        tensor: (rows, columns) or (columns,), in any floating-point type; a few rows at a time are made float32.
        kind: The type to give it.

    Raises:
        ExportError: llama.cpp's code is needed and missing, or a value doesn't fit the type.
    """
    from sienn_ray.compute_threads import compute_alone  # brings torch along, which types alone don't need

    rows = tensor.reshape(-1, tensor.shape[-1])
    step = max(1, _CHUNK_VALUES // rows.shape[1])
    starts = range(0, len(rows), step)
    quantize = _plain if kind in PLAIN else _by_llama_cpp
    if quantize is _by_llama_cpp:
        _library().ggml_quantize_init(int(kind))  # its tables, before threads share them
    num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(num_threads, "quantize", compute_alone) as threads:
        for turn in range(0, len(starts), num_threads):
            yield from threads.map(
                lambda start: quantize(rows[start : start + step].float().numpy(), kind),
                starts[turn : turn + num_threads],
            )


def _plain(rows: Array, kind: GGMLQuantizationType) -> Array:
    if kind is GGMLQuantizationType.F32:
        return rows
    if kind is GGMLQuantizationType.F16 and len(rows) and float(np.abs(rows).max()) > np.finfo(np.float16).max:
        raise ExportError("a weight is larger than F16 holds (65504); export as BF16, F32 or Q8_0")
    result: Array = quants.quantize(rows, kind)
    return result


def _by_llama_cpp(rows: Array, kind: GGMLQuantizationType) -> Array:
    source = np.ascontiguousarray(rows, np.float32)
    target = np.empty((len(rows), row_bytes(kind, rows.shape[1])), np.uint8)
    written = _library().ggml_quantize_chunk(
        int(kind), source.ctypes.data, target.ctypes.data, 0, len(rows), rows.shape[1], None
    )
    if written != target.nbytes:
        raise ExportError(f"llama.cpp wrote {written} bytes of {target.nbytes} as {kind.name}; nothing was exported")
    return target
