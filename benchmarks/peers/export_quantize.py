"""llama.cpp's own quantization of a whole file: `export_quantize.py LIBRARY SOURCE TARGET QUANTIZATION`."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import gguf


class _Params(ctypes.Structure):
    """The beginning of `llama_model_quantize_params` (llama.h)."""

    _fields_ = (("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("rest", ctypes.c_uint8 * 248))


def main(library: str, source: str, target: str, quantization: str) -> None:
    for dependency in ("libggml-base*.so*", "libggml.*so*"):
        for path in sorted(Path(library).parent.glob(dependency)):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    ggml = ctypes.CDLL(str(next(Path(library).parent.glob("libggml.*so*"))), mode=ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path(str(Path(library).parent).encode())
    llama = ctypes.CDLL(library)
    llama.llama_model_quantize_default_params.restype = _Params
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Params)]
    params = llama.llama_model_quantize_default_params()
    params.nthread = os.cpu_count()
    params.ftype = int(gguf.LlamaFileType[f"MOSTLY_{quantization}"])
    if llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise SystemExit("llama.cpp's quantization failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
