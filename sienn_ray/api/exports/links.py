"""Links to the files of exports: to the object store itself where that signs links, else to this API."""

from __future__ import annotations

import asyncio
import time

from fastapi import Request

from sienn_ray.api.deps import Backends
from sienn_ray.api.exports.signed_links import LinkSigner
from sienn_ray.api.http.public_urls import public_base
from sienn_ray.jobs.export_schema import ExportRecord

FILES_PATH = "/api/export-files"
# After so long a key that was deleted from the database signs and lets through no more.
_REMEMBERED_S = 300.0


class ExportLinks:
    """Makes links, and checks those to this server.

    Args:
        backends: See `Backends`.
    """

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._signer: LinkSigner | None = None
        self._forget_at = 0.0

    async def link(self, export: ExportRecord, request: Request) -> str | None:
        """A link to the export's file; None while there is none."""
        if export.file_name is None:
            return None
        settings, storage = self._backends.settings, self._backends.storage
        lifetime_s = settings.download_url_lifetime_s
        key, saved_as = f"{export.key}/{export.file_name}", download_name(export)
        at_store = None if storage.is_local else await asyncio.to_thread(storage.signed_url, key, lifetime_s, saved_as)
        if at_store is not None:
            return at_store
        begin = public_base(request, settings)
        return begin + (await self._get_signer()).signed(_path(export.job_id, export.id, export.file_name), lifetime_s)

    async def check(self, job_id: str, export_id: str, file_name: str, expires: str, signature: str) -> None:
        """Let through a link that this server has signed; raises `ForbiddenError`."""
        (await self._get_signer()).check(_path(job_id, export_id, file_name), expires, signature)

    async def _get_signer(self) -> LinkSigner:
        if self._signer is None or time.monotonic() >= self._forget_at:
            self._signer = LinkSigner(await self._backends.tracker.signing_key())
            self._forget_at = time.monotonic() + _REMEMBERED_S
        return self._signer


def download_name(export: ExportRecord) -> str:
    """Return the name under which a browser saves the file."""
    return f"{export.options.model_name or export.job_id}-{export.file_name}".replace("/", "-").replace(":", "-")


def _path(job_id: str, export_id: str, file_name: str) -> str:
    return f"{FILES_PATH}/{job_id}/{export_id}/{file_name}"
