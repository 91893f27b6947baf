"""What fine-tuned models can be exported as."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from sienn_ray.api.schemas.exports import ExportFormatEntry, ExportFormatList
from sienn_ray.export import llama_cpp_package
from sienn_ray.export.options import PLAIN_QUANTIZATIONS, QUANTIZATIONS

router = APIRouter(prefix="/api", tags=["Model Export"])


@router.get("/export-formats", summary="Get list of supported export formats", response_model_exclude_none=True)
async def export_formats() -> ExportFormatList:
    """Every format that a fine-tuned model can be taken home in, and which quantizations this server makes."""
    return formats(has_llama_cpp=await asyncio.to_thread(llama_cpp_package.is_installed))


def formats(*, has_llama_cpp: bool) -> ExportFormatList:
    """All formats.

    Args:
        has_llama_cpp: Whether llama.cpp's code for K-quants is here.
    """
    quantizations = list(QUANTIZATIONS if has_llama_cpp else PLAIN_QUANTIZATIONS)
    missing = f"K-quants need llama.cpp's code; add it with `{llama_cpp_package.INSTALL_COMMAND}`"
    lora = "adapter_only: true gives the adapter alone, as a GGUF LoRA"
    return ExportFormatList(
        formats=[
            ExportFormatEntry(
                name="ollama",
                description="Ollama Modelfile format for local deployment",
                supported=True,
                parameters=["model_name", "temperature", "top_p", "top_k"],
                quantizations=quantizations,
                note="Takes quantization and system as well" if has_llama_cpp else missing,
            ),
            ExportFormatEntry(
                name="huggingface",
                description="HuggingFace format (adapter + tokenizer)",
                supported=True,
                parameters=[],
                note="merged: true gives the whole model in safetensors",
            ),
            ExportFormatEntry(
                name="gguf",
                description="GGUF quantized format for llama.cpp",
                supported=True,
                parameters=["quantization"],
                quantizations=quantizations,
                note=lora if has_llama_cpp else f"{missing}. {lora}",
            ),
        ]
    )
