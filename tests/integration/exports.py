"""How tests ask for exports, wait for them, and fetch them."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx2

from tests.integration.service import Service, wait_for

EXPORT_TIMEOUT_S = 180.0


def export(service: Service, job_id: str, query: str = "", **body: Any) -> Any:
    return service.post(f"/api/export-model/{job_id}{query}", json=body)


def exported(service: Service, job_id: str, **body: Any) -> Any:
    """An export that is complete, however slow the machine."""
    made = export(service, job_id, **body)
    return made if made["status"] == "completed" else finished(service, job_id, made["export_id"])


def finished(service: Service, job_id: str, export_id: str) -> Any:
    def look() -> Any:
        found = state(service, job_id, export_id)
        assert found is None or found["status"] not in {"failed", "cancelled"}, found
        return found if found is not None and found["status"] == "completed" else None

    return wait_for(look, f"end of export {export_id}", EXPORT_TIMEOUT_S)


def state(service: Service, job_id: str, export_id: str) -> Any:
    """How an export is; None while the tracker is away."""
    response = httpx2.get(f"{service.url}/api/exports/{job_id}/{export_id}", timeout=60.0)
    return None if response.is_error else response.json()


def download(made: Any) -> bytes:
    content = httpx2.get(made["download_url"], timeout=120.0).content
    assert len(content) == made["file_size_bytes"]
    assert hashlib.sha256(content).hexdigest() == made["sha256"]
    return content
