"""The catalog of base models."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from fastapi import APIRouter

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.schemas.models import BaseModelList, BaseModelSummary
from sienn_ray.catalog import CATALOG, CatalogEntry, cached_size_bytes

router = APIRouter(prefix="/api/models", tags=["Models"], dependencies=[needs(Scope.READ, Scope.TRAIN, Scope.INFER)])


@router.get("/available", summary="Get list of available pre-configured models")
async def available_models() -> BaseModelList:
    """The catalog, with what of it is on this machine. Other causal models of the hub are accepted too."""
    entries = sorted(CATALOG, key=lambda entry: entry.vram_required_gb)
    return BaseModelList(models=await asyncio.to_thread(lambda: [_summary(entry) for entry in entries]))


def _summary(entry: CatalogEntry) -> BaseModelSummary:
    size_bytes = cached_size_bytes(entry.id)
    return BaseModelSummary(**asdict(entry), is_cached=size_bytes is not None, cache_size_bytes=size_bytes)
