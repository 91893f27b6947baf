"""Export formats: each one is an `ExportTarget`, which the API, the command line and the runs of exports read.

Nothing here imports torch or llama.cpp's code. The files are written by `make.py`, which has a branch for each format.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from sienn_ray.errors import ExportError, InvalidInputError
from sienn_ray.export.gguf import llama_cpp_package
from sienn_ray.export.options import PLAIN_QUANTIZATIONS, ExportFormat, ExportOptions, GgufQuantization

# Fields of a request beside its format.
Choice = Literal[
    "model_name", "temperature", "top_p", "top_k", "system", "quantization", "merged", "adapter_only"
]  # fmt: skip

DEFAULT_QUANTIZATION = GgufQuantization.Q4_K_M
DEFAULT_LORA_QUANTIZATION = GgufQuantization.F32
# The largest matrix in its own type, in float32, merged, and on its way to storage.
_MERGING_COPIES = 4
_NUM_ID_CHARS = 8
_NO_K_QUANTS = f"K-quants need llama.cpp's code; add it with `{llama_cpp_package.INSTALL_COMMAND}`"
_LORA = "adapter_only: true gives the adapter alone, as a GGUF LoRA"


@dataclass(frozen=True)
class ExportTarget:
    """All that the service says and decides about one export format, but for writing its files.

    Args:
        format: The format.
        description: Sentence of `/api/export-formats`.
        choices: Fields of a request that it takes.
        parameters: Those of them that `/api/export-formats` lists; the note has the others.
        note: Note of `/api/export-formats`.
        note_without_llama_cpp: The same where llama.cpp's code for K-quants isn't installed.
        options: Makes of the choices of a request, and the job's id, those of the export: with the format's defaults,
            and without what the format doesn't have, so that equal exports are one.
        file_name: Name of the file that is downloaded, without the job's id.
        num_matrix_copies: Copies in float32 of the base model's largest matrix that a run holds at once; 0 where it
            doesn't read the base model's weights.
        check_packages: Raises `ExportError` if a package that the options need isn't installed; it looks for files.
    """

    format: ExportFormat
    description: str
    choices: tuple[Choice, ...]
    parameters: tuple[Choice, ...]
    note: str
    note_without_llama_cpp: str
    options: Callable[[ExportOptions, str], ExportOptions]
    file_name: Callable[[ExportOptions], str]
    num_matrix_copies: Callable[[ExportOptions], int]
    check_packages: Callable[[ExportOptions], None]


def target_of(export_format: ExportFormat) -> ExportTarget:
    """Return the target of a format."""
    match export_format:
        case ExportFormat.OLLAMA:
            return _OLLAMA
        case ExportFormat.HUGGINGFACE:
            return _HUGGINGFACE
        case ExportFormat.GGUF:
            return _GGUF
        case _:
            assert_never(export_format)


def formats_with(choice: Choice) -> str:
    """Return the names of the formats that take a choice, as in `gguf and ollama`."""
    *names, last = sorted(target.format for target in TARGETS if choice in target.choices)
    return f"{', '.join(names)} and {last}" if names else str(last)


def check_choices(asked: ExportOptions, given: Collection[str]) -> None:
    """Refuse choices that exclude each other, or that would be left undone by the format.

    Args:
        asked: The choices as they came.
        given: Names of those that were given, rather than left as they are by default.

    Raises:
        InvalidInputError: There are such.
    """
    if asked.merged and asked.adapter_only:
        raise InvalidInputError("merged and adapter_only exclude each other; leave out one of them")
    for choice in get_args(Choice):
        if choice in given:
            _check_taken(choice, asked.format)
    if asked.quantization is not None and asked.adapter_only and not asked.quantization.is_plain:
        raise InvalidInputError(
            f"quantization {asked.quantization} isn't for an adapter alone, which takes "
            f"{', '.join(PLAIN_QUANTIZATIONS)}"
        )
    if asked.system is not None and not _can_be_quoted(asked.system):
        raise InvalidInputError(
            "system has three quotes in a row or a character that can't be printed, which a Modelfile can't say"
        )


def _check_taken(choice: Choice, export_format: ExportFormat) -> None:
    if choice in target_of(export_format).choices:
        return
    names = formats_with(choice)
    noun = "formats" if " and " in names else "format"
    other = f"choose the format {names}" if noun == "format" else "choose one of these"
    raise InvalidInputError(f"{choice} is of the {noun} {names}, not {export_format}; leave it out, or {other}")


def _can_be_quoted(text: str) -> bool:
    return '"""' not in text and all(character.isprintable() or character in "\n\r\t" for character in text)


def _check_llama_cpp(options: ExportOptions) -> None:
    if options.quantization is None or options.quantization.is_plain or llama_cpp_package.is_installed():
        return
    raise ExportError(
        f"quantization {options.quantization} needs llama.cpp's code, which isn't installed; add it with "
        f"`{llama_cpp_package.INSTALL_COMMAND}`, or choose one of {', '.join(PLAIN_QUANTIZATIONS)}"
    )


def _ollama_options(asked: ExportOptions, job_id: str) -> ExportOptions:
    return ExportOptions(
        format=ExportFormat.OLLAMA,
        quantization=asked.quantization or DEFAULT_QUANTIZATION,
        model_name=asked.model_name or f"sienn-{job_id[:_NUM_ID_CHARS]}",
        sampling=asked.sampling,
        system=asked.system,
    )


def _huggingface_options(asked: ExportOptions, _: str) -> ExportOptions:
    return ExportOptions(format=ExportFormat.HUGGINGFACE, merged=asked.merged)


def _gguf_options(asked: ExportOptions, _: str) -> ExportOptions:
    default = DEFAULT_LORA_QUANTIZATION if asked.adapter_only else DEFAULT_QUANTIZATION
    return ExportOptions(
        format=ExportFormat.GGUF, adapter_only=asked.adapter_only, quantization=asked.quantization or default
    )


_OLLAMA = ExportTarget(
    format=ExportFormat.OLLAMA,
    description="Ollama Modelfile format for local deployment",
    choices=("model_name", "temperature", "top_p", "top_k", "quantization", "system"),
    parameters=("model_name", "temperature", "top_p", "top_k"),
    note="Takes quantization and system as well",
    note_without_llama_cpp=_NO_K_QUANTS,
    options=_ollama_options,
    file_name=lambda _: "ollama.zip",
    num_matrix_copies=lambda _: _MERGING_COPIES,
    check_packages=_check_llama_cpp,
)
_HUGGINGFACE = ExportTarget(
    format=ExportFormat.HUGGINGFACE,
    description="HuggingFace format (adapter + tokenizer)",
    choices=("merged",),
    parameters=(),
    note="merged: true gives the whole model in safetensors",
    note_without_llama_cpp="merged: true gives the whole model in safetensors",
    options=_huggingface_options,
    file_name=lambda options: "merged.zip" if options.merged else "adapter.zip",
    num_matrix_copies=lambda options: _MERGING_COPIES if options.merged else 0,
    check_packages=lambda _: None,
)
_GGUF = ExportTarget(
    format=ExportFormat.GGUF,
    description="GGUF quantized format for llama.cpp",
    choices=("quantization", "adapter_only"),
    parameters=("quantization",),
    note=_LORA,
    note_without_llama_cpp=f"{_NO_K_QUANTS}. {_LORA}",
    options=_gguf_options,
    file_name=lambda options: f"{'adapter' if options.adapter_only else 'model'}-{options.quantization}.gguf",
    num_matrix_copies=lambda options: 0 if options.adapter_only else _MERGING_COPIES,
    check_packages=_check_llama_cpp,
)
TARGETS = tuple(target_of(export_format) for export_format in ExportFormat)
