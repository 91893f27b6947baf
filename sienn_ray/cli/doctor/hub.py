"""Checks of base models: those on this machine, and the hub that has the others."""

from __future__ import annotations

import httpx2
from huggingface_hub import constants

from sienn_ray import catalog
from sienn_ray.cli.doctor.findings import Finding, fail, ok, warn
from sienn_ray.settings import Settings


def check_base_models() -> Finding:
    """Base models of the catalog that are on this machine."""
    here = [entry.id for entry in catalog.CATALOG if catalog.cached_size_bytes(entry.id) is not None]
    if here:
        return ok(f"on this machine: {', '.join(here)}")
    return warn("none on this machine", "the first fine-tune downloads one, which takes the hub")


def check_hub(settings: Settings) -> Finding:
    """The model hub."""
    has_models = any(catalog.cached_size_bytes(entry.id) is not None for entry in catalog.CATALOG)
    if constants.HF_HUB_OFFLINE:
        found = "HF_HUB_OFFLINE is set, so the hub isn't asked"
        return ok(found) if has_models else fail(found, "unset it, or bring a base model here")
    try:
        httpx2.head(constants.ENDPOINT, timeout=settings.hub_timeout_s, follow_redirects=True)
    except httpx2.HTTPError as error:
        found = f"{constants.ENDPOINT} doesn't answer ({type(error).__name__})"
        if has_models:
            return warn(found, "only the base models on this machine can be used; check network and proxy")
        return fail(found, "check network and proxy, or bring a base model here and set HF_HOME to its cache")
    return ok(f"{constants.ENDPOINT} answers")
