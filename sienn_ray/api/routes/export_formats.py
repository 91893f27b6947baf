"""Routes about the formats that a fine-tuned model can be exported to."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.schemas.exports import ExportFormatEntry, ExportFormatList
from sienn_ray.export.gguf import llama_cpp_package
from sienn_ray.export.options import PLAIN_QUANTIZATIONS, GgufQuantization
from sienn_ray.export.targets import TARGETS, ExportTarget

router = APIRouter(prefix="/api", tags=["Model Export"], dependencies=[needs(Scope.READ, Scope.EXPORT)])


@router.get("/export-formats", summary="Get list of supported export formats", response_model_exclude_none=True)
async def export_formats() -> ExportFormatList:
    """Every format that a fine-tuned model can be taken home in, and which quantizations this server makes."""
    return formats(has_llama_cpp=await asyncio.to_thread(llama_cpp_package.is_installed))


def formats(*, has_llama_cpp: bool) -> ExportFormatList:
    """All formats.

    Args:
        has_llama_cpp: Whether llama.cpp's code for K-quants is here.
    """
    return ExportFormatList(formats=[_entry(target, has_llama_cpp=has_llama_cpp) for target in TARGETS])


def _entry(target: ExportTarget, *, has_llama_cpp: bool) -> ExportFormatEntry:
    quantizations = GgufQuantization if has_llama_cpp else PLAIN_QUANTIZATIONS
    return ExportFormatEntry(
        name=target.format,
        description=target.description,
        supported=True,
        parameters=list(target.parameters),
        quantizations=list(quantizations) if "quantization" in target.choices else None,
        note=target.note if has_llama_cpp else target.note_without_llama_cpp,
    )
