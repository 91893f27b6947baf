"""Bodies about exports."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from sienn_ray.api.schemas.common import JOB_ID, RequestBody, ResponseBody, Timestamp
from sienn_ray.api.schemas.sampling import MAX_TOP_K
from sienn_ray.errors import InvalidInputError
from sienn_ray.export.options import (
    DEFAULT_LORA_QUANTIZATION,
    DEFAULT_QUANTIZATION,
    PLAIN_QUANTIZATIONS,
    QUANTIZATIONS,
    ExportFormat,
    ExportOptions,
    Sampling,
)

EXPORT_ID = "9f86d081884c7d659a2feaa0c55ad015"
_MAX_SYSTEM_CHARS = 20_000
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}"
_OLLAMA_NAME = rf"^(?:{_NAME}/)?{_NAME}(?::{_NAME})?$"
_URL = (
    f"http://127.0.0.1:8000/api/export-files/{JOB_ID}/{EXPORT_ID}/model-Q4_K_M.gguf?expires=1762945200&signature=mP3x"
)

FormatName = Literal["ollama", "huggingface", "gguf"]
StatusName = Literal["pending", "running", "completed", "failed", "cancelled"]
FailureName = Literal["invalid", "storage_full", "out_of_memory", "interrupted", "internal"]
QuantizationName = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K"
]


def _in_capitals(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


Quantization = Annotated[QuantizationName, BeforeValidator(_in_capitals)]


def _ollama_name(value: str) -> str:
    if re.fullmatch(_OLLAMA_NAME, value) is None:
        raise ValueError(
            "that is no name for Ollama: it takes name, owner/name or name:tag, each of letters, digits, '.', '_' and "
            "'-', at most 80 characters"
        )
    return value


OllamaName = Annotated[str, AfterValidator(_ollama_name), WithJsonSchema({"type": "string", "pattern": _OLLAMA_NAME})]


class ExportModelRequest(RequestBody):
    """What a fine-tuned model is to be exported as."""

    format: FormatName = Field(description="What it is to run in.", examples=["ollama"])
    model_name: OllamaName | None = Field(
        None,
        description="ollama: what Ollama calls the model, `name`, `owner/name` or `name:tag`; made of the job's id "
        "without it.",
        examples=["my-custom-model"],
    )
    temperature: float = Field(0.8, ge=0.0, le=2.0, description="ollama: default temperature.", examples=[0.8])
    top_p: float = Field(0.9, gt=0.0, le=1.0, description="ollama: default top_p.", examples=[0.9])
    top_k: int = Field(40, ge=0, le=MAX_TOP_K, description="ollama: default top_k; 0 is all.", examples=[40])
    system: Annotated[str, StringConstraints(max_length=_MAX_SYSTEM_CHARS)] | None = Field(
        None,
        description="ollama: system message for conversations without one; the chat template's own without it.",
        examples=[None, "You answer questions about the Kestrel Sound ferry."],
    )
    quantization: Quantization | None = Field(
        None,
        description=f"gguf and ollama: quantization level, in any case; {DEFAULT_QUANTIZATION} without it, "
        f"{DEFAULT_LORA_QUANTIZATION} for an adapter alone.",
        examples=["Q4_K_M"],
    )
    merged: bool = Field(
        False,
        description="huggingface: the whole model with the adapter in it, not the adapter alone.",
        examples=[False],
    )
    adapter_only: bool = Field(
        False, description="gguf: the adapter alone, to be applied to a GGUF of the base model.", examples=[False]
    )

    @model_validator(mode="after")
    def _fits_the_format(self) -> Self:
        if self.merged and self.adapter_only:
            raise InvalidInputError("merged and adapter_only exclude each other; leave out one of them")
        if self.adapter_only and self.format != "gguf":
            raise InvalidInputError(f"adapter_only is of the format gguf, not {self.format}; leave it out")
        if self.quantization is not None and self.format == "huggingface":
            raise InvalidInputError("quantization is of the formats gguf and ollama, not huggingface; leave it out")
        if self.adapter_only and self.quantization not in (None, *PLAIN_QUANTIZATIONS):
            raise InvalidInputError(
                f"quantization {self.quantization} isn't for an adapter alone, which takes "
                f"{', '.join(PLAIN_QUANTIZATIONS)}"
            )
        if self.system is not None and not _can_be_quoted(self.system):
            raise InvalidInputError(
                "system has three quotes in a row or a character that can't be printed, which a Modelfile can't say"
            )
        return self

    def options(self, job_id: str) -> ExportOptions:
        """The same without what the format doesn't have, so that equal exports are one."""
        name = ExportFormat(self.format)
        if name is ExportFormat.HUGGINGFACE:
            return ExportOptions(format=name, merged=self.merged)
        if name is ExportFormat.GGUF:
            default = DEFAULT_LORA_QUANTIZATION if self.adapter_only else DEFAULT_QUANTIZATION
            return ExportOptions(format=name, adapter_only=self.adapter_only, quantization=self.quantization or default)
        return ExportOptions(
            format=name,
            quantization=self.quantization or DEFAULT_QUANTIZATION,
            model_name=self.model_name or f"sienn-{job_id[:8]}",
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
            system=self.system,
        )


def _can_be_quoted(text: str) -> bool:
    return '"""' not in text and all(character.isprintable() or character in "\n\r\t" for character in text)


class ExportModelResponse(ResponseBody):
    """An export, as far as it is."""

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    format: FormatName = Field(description="The format.", examples=["gguf"])
    status: StatusName = Field(description="Where it stands.", examples=["completed"])
    message: str = Field(description="The same in a sentence.", examples=["Model exported successfully to gguf format"])
    download_url: str | None = Field(
        description="Where the file is, once it is there: with Range requests, and without credentials for a while.",
        examples=[_URL],
    )
    file_size_bytes: int | None = Field(description="Bytes of the file.", examples=[105454080])
    timestamp: Timestamp
    export_id: str = Field(description="The export's id: the same for the same job and choices.", examples=[EXPORT_ID])
    progress: int = Field(ge=0, le=100, description="Percent of the work that is done.", examples=[100])
    file_name: str | None = Field(description="Name of the file.", examples=["model-Q4_K_M.gguf"])
    sha256: str | None = Field(description="Of the file, as hex; also its `ETag`.", examples=["9f86d081884c7d65" * 4])
    quantization: QuantizationName | None = Field(description="Of a GGUF.", examples=["Q4_K_M"])
    merged: bool = Field(description="huggingface: whether it is the whole model.", examples=[False])
    adapter_only: bool = Field(description="gguf: whether it is the adapter alone.", examples=[False])
    model_name: str | None = Field(description="ollama: what Ollama calls it.", examples=[None, "my-chatbot"])
    failure_reason: FailureName | None = Field(
        description="Why it failed, for programs to switch on.", examples=[None, "storage_full"]
    )
    created_at: Timestamp
    expires_at: Timestamp | None = Field(
        description="When the export is deleted, unless it is asked for again.", examples=["2025-11-19T11:00:00.000Z"]
    )


class ExportList(ResponseBody):
    """A job's exports."""

    exports: list[ExportModelResponse] = Field(description="The newest first.")
    count: int = Field(description="How many there are.", examples=[1])


class DeletedExport(ResponseBody):
    """An export that is gone."""

    export_id: str = Field(description="Its id.", examples=[EXPORT_ID])
    message: str = Field(
        "Export deleted successfully", description="What was done.", examples=["Export deleted successfully"]
    )


class ExportFormatEntry(ResponseBody):
    """One format that a fine-tuned model can be taken home in."""

    name: str = Field(description="What requests call it.", examples=["ollama"])
    description: str = Field(description="What it is.", examples=["Ollama Modelfile format for local deployment"])
    supported: bool = Field(description="Whether this server makes it.", examples=[True])
    parameters: list[str] = Field(
        description="Further fields of its request.", examples=[["model_name", "temperature", "top_p", "top_k"]]
    )
    quantizations: list[str] | None = Field(
        None,
        description="Levels that this server makes; left out where there are none.",
        examples=[list(QUANTIZATIONS)],
    )
    note: str | None = Field(
        None,
        description="How to get it, or what is missing; left out where there is nothing to add.",
        examples=["adapter_only: true gives the adapter alone, as a GGUF LoRA"],
    )


class ExportFormatList(ResponseBody):
    """All formats."""

    formats: list[ExportFormatEntry] = Field(
        description="Every format, whether supported or not.",
        examples=[
            [
                {
                    "name": "huggingface",
                    "description": "HuggingFace format (adapter + tokenizer)",
                    "supported": True,
                    "parameters": [],
                }
            ]
        ],
    )
