"""Bodies about exports."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from sienn_ray.api.schemas.common import JOB_ID, Inline, RequestBody, ResponseBody, Timestamp
from sienn_ray.api.schemas.sampling import MAX_TOP_K
from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization, Sampling
from sienn_ray.export.targets import (
    DEFAULT_LORA_QUANTIZATION,
    DEFAULT_QUANTIZATION,
    check_choices,
    formats_with,
    target_of,
)
from sienn_ray.jobs.export_schema import ExportFailure, ExportStatus

EXPORT_ID = "9f86d081884c7d659a2feaa0c55ad015"
_MAX_SYSTEM_CHARS = 20_000
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}"
_OLLAMA_NAME = rf"^(?:{_NAME}/)?{_NAME}(?::{_NAME})?$"
_URL = (
    f"http://127.0.0.1:8000/api/export-files/{JOB_ID}/{EXPORT_ID}/model-Q4_K_M.gguf?expires=1762945200&signature=mP3x"
)

_SAMPLING = Sampling()

FormatName = Annotated[ExportFormat, Inline()]
StatusName = Annotated[ExportStatus, Inline()]
FailureName = Annotated[ExportFailure, Inline()]
QuantizationName = Annotated[GgufQuantization, Inline()]


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
    """The format of an export, and the choices that go with it."""

    format: FormatName = Field(description="What it is to run in.", examples=["ollama"])
    model_name: OllamaName | None = Field(
        None,
        description=f"{formats_with('model_name')}: what Ollama calls the model, `name`, `owner/name` or `name:tag`; "
        "made of the job's id without it.",
        examples=["my-custom-model"],
    )
    temperature: float = Field(
        _SAMPLING.temperature,
        ge=0.0,
        le=2.0,
        description=f"{formats_with('temperature')}: default temperature.",
        examples=[0.8],
    )
    top_p: float = Field(
        _SAMPLING.top_p, gt=0.0, le=1.0, description=f"{formats_with('top_p')}: default top_p.", examples=[0.9]
    )
    top_k: int = Field(
        _SAMPLING.top_k,
        ge=0,
        le=MAX_TOP_K,
        description=f"{formats_with('top_k')}: default top_k; 0 is all.",
        examples=[40],
    )
    system: Annotated[str, StringConstraints(max_length=_MAX_SYSTEM_CHARS)] | None = Field(
        None,
        description=f"{formats_with('system')}: system message for conversations without one; the chat template's own "
        "without it.",
        examples=[None, "You answer questions about the Kestrel Sound ferry."],
    )
    quantization: Quantization | None = Field(
        None,
        description=f"{formats_with('quantization')}: quantization level, in any case; {DEFAULT_QUANTIZATION} without "
        f"it, {DEFAULT_LORA_QUANTIZATION} for an adapter alone.",
        examples=["Q4_K_M"],
    )
    merged: bool = Field(
        False,
        description=f"{formats_with('merged')}: the whole model with the adapter in it, not the adapter alone.",
        examples=[False],
    )
    adapter_only: bool = Field(
        False,
        description=f"{formats_with('adapter_only')}: the adapter alone, to be applied to a GGUF of the base model.",
        examples=[False],
    )

    @model_validator(mode="after")
    def _fits_the_format(self) -> Self:
        given = {name for name in self.model_fields_set if getattr(self, name) not in (None, False)}
        check_choices(self._asked, given)
        return self

    def options(self, job_id: str) -> ExportOptions:
        """The choices of the export, with the format's defaults and without what it doesn't have."""
        return target_of(self.format).options(self._asked, job_id)

    @property
    def _asked(self) -> ExportOptions:
        return ExportOptions(
            format=self.format,
            quantization=self.quantization,
            merged=self.merged,
            adapter_only=self.adapter_only,
            model_name=self.model_name,
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
            system=self.system,
        )


class ExportModelResponse(ResponseBody):
    """An export, as far as it is."""

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    format: FormatName = Field(description="The format.", examples=["gguf"])
    status: StatusName = Field(description="Where it stands.", examples=["completed"])
    message: str = Field(description="The same in a sentence.", examples=["Model exported successfully to gguf format"])
    download_url: str | None = Field(
        description="Where the file is, once it is there, for callers with the scope `export`: with Range requests, "
        "and without credentials for a while.",
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
    count: int = Field(description="How many there are, on all pages.", examples=[1])
    next_cursor: str | None = Field(description="`cursor` of the next page; null after the last one.", examples=[None])


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
        examples=[list(GgufQuantization)],
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
