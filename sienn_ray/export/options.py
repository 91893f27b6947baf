"""Options of an export: its format and the choices that go with it."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import assert_never

from pydantic import BaseModel, ConfigDict

FOLDER_KEY = "exports"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class ExportFormat(StrEnum):
    """Formats of exports; `targets.py` says all else about each."""

    OLLAMA = "ollama"
    HUGGINGFACE = "huggingface"
    GGUF = "gguf"


class GgufQuantization(StrEnum):
    """Types of a GGUF's weights, by llama.cpp's names; from the largest file to the smallest."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"
    Q6_K = "Q6_K"
    Q5_K_M = "Q5_K_M"
    Q5_K_S = "Q5_K_S"
    Q4_K_M = "Q4_K_M"
    Q4_K_S = "Q4_K_S"
    Q3_K_M = "Q3_K_M"
    Q2_K = "Q2_K"

    @property
    def is_plain(self) -> bool:
        """Return whether the package `gguf` writes it, without llama.cpp's code; a GGUF LoRA takes these alone."""
        match self:
            case GgufQuantization.F32 | GgufQuantization.F16 | GgufQuantization.BF16 | GgufQuantization.Q8_0:
                return True
            case (
                GgufQuantization.Q6_K
                | GgufQuantization.Q5_K_M
                | GgufQuantization.Q5_K_S
                | GgufQuantization.Q4_K_M
                | GgufQuantization.Q4_K_S
                | GgufQuantization.Q3_K_M
                | GgufQuantization.Q2_K
            ):
                return False
            case _:
                assert_never(self)


PLAIN_QUANTIZATIONS = tuple(quantization for quantization in GgufQuantization if quantization.is_plain)


class Sampling(BaseModel):
    """Sampling parameters that Ollama uses unless a request says otherwise.

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
        quantization: Of a GGUF.
        merged: huggingface: the whole model instead of the adapter.
        adapter_only: gguf: the adapter instead of the whole model.
        model_name: ollama: what Ollama calls it.
        sampling: ollama.
        system: ollama: system message; None is the chat template's own.
    """

    model_config = ConfigDict(frozen=True)

    format: ExportFormat
    quantization: GgufQuantization | None = None
    merged: bool = False
    adapter_only: bool = False
    model_name: str | None = None
    sampling: Sampling = Sampling()
    system: str | None = None

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
