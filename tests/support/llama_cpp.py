"""llama.cpp itself, out of the package `xllamacpp`, to load what was exported: its tokens, its logits, its answers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp  # type: ignore[import-untyped]

_CONTEXT_TOKENS = 1024


class _ModelParams(ctypes.Structure):
    """`llama_model_params`, whose defaults are taken as they are; it is handed on whole."""

    _fields_ = (("opaque", ctypes.c_uint8 * 256),)


class _ContextParams(ctypes.Structure):
    """The beginning of `llama_context_params` (llama.h)."""

    _fields_ = (
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("n_outputs_max_per_seq", ctypes.c_uint32),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("ctx_type", ctypes.c_int32),
        ("rope_scaling_type", ctypes.c_int32),
        ("pooling_type", ctypes.c_int32),
        ("attention_type", ctypes.c_int32),
        ("flash_attn_type", ctypes.c_int32),
        ("rope_and_yarn", ctypes.c_uint32 * 8),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("rest", ctypes.c_uint8 * 256),
    )


class _Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_pointer, _int = ctypes.c_void_p, ctypes.c_int32
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_model_default_params": (_ModelParams, []),
    "llama_context_default_params": (_ContextParams, []),
    "llama_model_load_from_file": (_pointer, [ctypes.c_char_p, _ModelParams]),
    "llama_init_from_model": (_pointer, [_pointer, _ContextParams]),
    "llama_model_get_vocab": (_pointer, [_pointer]),
    "llama_vocab_n_tokens": (_int, [_pointer]),
    "llama_vocab_is_eog": (ctypes.c_bool, [_pointer, _int]),
    "llama_tokenize": (
        _int,
        [_pointer, ctypes.c_char_p, _int, ctypes.POINTER(_int), _int, ctypes.c_bool, ctypes.c_bool],
    ),
    "llama_adapter_lora_init": (_pointer, [_pointer, ctypes.c_char_p]),
    "llama_set_adapters_lora": (
        _int,
        [_pointer, ctypes.POINTER(_pointer), ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)],
    ),
    "llama_get_memory": (_pointer, [_pointer]),
    "llama_memory_clear": (None, [_pointer, ctypes.c_bool]),
    "llama_batch_init": (_Batch, [_int, _int, _int]),
    "llama_batch_free": (None, [_Batch]),
    "llama_decode": (_int, [_pointer, _Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [_pointer, _int]),
    "llama_free": (None, [_pointer]),
    "llama_model_free": (None, [_pointer]),
    "llama_log_set": (None, [_pointer, _pointer]),
}
_Logger = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_QUIET = _Logger(lambda *_: None)


@cache
def _library() -> Any:
    folder = Path(xllamacpp.__file__).parent
    library = ctypes.CDLL(str(next(path for path in folder.iterdir() if path.suffix in {".so", ".pyd"})))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(ctypes.cast(_QUIET, ctypes.c_void_p), None)
    library.llama_backend_init()
    return library


@contextmanager
def opened(path: Path, lora: Path | None = None) -> Iterator[LlamaCpp]:
    """A GGUF file, loaded; with a GGUF LoRA applied if one is given."""
    model = LlamaCpp(path, lora)
    try:
        yield model
    finally:
        model.close()


class LlamaCpp:
    """A model in llama.cpp, on the CPU."""

    def __init__(self, path: Path, lora: Path | None = None) -> None:
        self._lib = _library()
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), self._lib.llama_model_default_params())
        assert self._model, f"llama.cpp doesn't load {path}"
        options = self._lib.llama_context_default_params()
        # A version that has other fields there is noticed.
        assert (options.n_ctx, options.n_batch, options.type_k, options.type_v) == (512, 2048, 1, 1)
        options.n_ctx = options.n_batch = options.n_ubatch = _CONTEXT_TOKENS
        options.n_threads = options.n_threads_batch = 1  # others wait for each other in loops
        # Its caches of keys and values are of 16 bits otherwise.
        options.type_k = options.type_v = 0
        options.flash_attn_type = 0
        self._context = self._lib.llama_init_from_model(self._model, options)
        assert self._context, "llama.cpp makes no context"
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.num_tokens = self._lib.llama_vocab_n_tokens(self._vocab)
        if lora is not None:
            self._apply(lora)

    def _apply(self, lora: Path) -> None:
        adapter = self._lib.llama_adapter_lora_init(self._model, str(lora).encode())
        assert adapter, f"llama.cpp doesn't load {lora}"
        adapters, scales = (ctypes.c_void_p * 1)(adapter), (ctypes.c_float * 1)(1.0)
        assert self._lib.llama_set_adapters_lora(self._context, adapters, 1, scales) == 0

    def close(self) -> None:
        """Free its memory."""
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a prompt, with special tokens where their text is."""
        data = text.encode()
        tokens = (ctypes.c_int32 * (len(data) + 8))()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), tokens, len(tokens), True, True)
        return list(tokens[:count])

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """(tokens, vocabulary): what follows each token."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        return self._decode(tokens, 0)

    def _decode(self, tokens: Sequence[int], position: int) -> np.ndarray:
        batch = self._lib.llama_batch_init(len(tokens), 0, 1)
        try:
            for index, token in enumerate(tokens):
                batch.token[index] = token
                batch.pos[index] = position + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = 1
            batch.n_tokens = len(tokens)
            assert self._lib.llama_decode(self._context, batch) == 0
            rows = [self._lib.llama_get_logits_ith(self._context, index) for index in range(len(tokens))]
            return np.stack([np.ctypeslib.as_array(row, (self.num_tokens,)).copy() for row in rows])
        finally:
            self._lib.llama_batch_free(batch)

    def continuation(self, tokens: Sequence[int], max_new_tokens: int) -> list[int]:
        """The most likely token, again and again, up to the end of the answer."""
        answer: list[int] = []
        logits = self.logits(tokens)[-1]
        while len(answer) < max_new_tokens:
            token = int(logits.argmax())
            if self._lib.llama_vocab_is_eog(self._vocab, token):
                break
            answer.append(token)
            logits = self._decode([token], len(tokens) + len(answer) - 1)[-1]
        return answer
