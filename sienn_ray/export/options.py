"""What an export is made of: its format and the choices that go with it."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

QUANTIZATIONS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K")
# What needs no more than the package `gguf`; a GGUF LoRA takes these alone.
PLAIN_QUANTIZATIONS = ("F32", "F16", "BF16", "Q8_0")
DEFAULT_QUANTIZATION = "Q4_K_M"
DEFAULT_LORA_QUANTIZATION = "F32"
FOLDER_KEY = "exports"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class ExportFormat(StrEnum):
    """Where an export is to run."""

    OLLAMA = "ollama"
    HUGGINGFACE = "huggingface"
    GGUF = "gguf"


class Sampling(BaseModel):
    """What Ollama draws tokens with, unless a request says otherwise.

    Args:
        temperature: 0 takes the most likely token.
        top_p: Share of the probability that is drawn from.
        top_k: Tokens that are drawn from.
    """

    model_config = ConfigDict(frozen=True)

    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 40


class ExportOptions(BaseModel):
    """The choices of one export; those that its format doesn't have are None.

    Args:
        format: The format.
        quantization: Of a GGUF, one of `QUANTIZATIONS`.
        merged: huggingface: the whole model instead of the adapter.
        adapter_only: gguf: the adapter instead of the whole model.
        model_name: ollama: what Ollama calls it.
        sampling: ollama.
        system: ollama: system message; None is the chat template's own.
    """

    model_config = ConfigDict(frozen=True)

    format: ExportFormat
    quantization: str | None = None
    merged: bool = False
    adapter_only: bool = False
    model_name: str | None = None
    sampling: Sampling = Sampling()
    system: str | None = None

    @property
    def is_whole_model(self) -> bool:
        """Whether the base model's weights are in it."""
        return self.merged or (self.format is not ExportFormat.HUGGINGFACE and not self.adapter_only)

    @property
    def file_name(self) -> str:
        """Name of the file that is downloaded, without the job's id."""
        if self.format is ExportFormat.HUGGINGFACE:
            return "merged.zip" if self.merged else "adapter.zip"
        if self.format is ExportFormat.OLLAMA:
            return "ollama.zip"
        return f"{'adapter' if self.adapter_only else 'model'}-{self.quantization}.gguf"

    def export_id(self, job_id: str) -> str:
        """The id of this export of a job: the same for the same choices."""
        text = f"{job_id} {self.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def folder_key(job_id: str, export_id: str) -> str:
    """Storage key of an export's folder."""
    return f"{job_key(job_id)}/{export_id}"


def job_key(job_id: str) -> str:
    """Storage key of the folder with all exports of a job."""
    return f"{FOLDER_KEY}/{job_id}"


def printable_name(text: str) -> str:
    """A name for use within files."""
    return _NOT_IN_A_NAME.sub("-", text).strip("-.") or "model"
