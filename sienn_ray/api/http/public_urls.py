"""URLs of this service as its clients reach it."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request

from sienn_ray.settings import Settings


def public_base(request: Request, settings: Settings) -> str:
    """Return what all URLs of this service begin with, without a slash at its end.

    Behind a proxy that is `SIENN_PUBLIC_URL`, which may have a path.
    """
    return settings.public_url.rstrip("/") or str(request.base_url).rstrip("/")


def public_path(request: Request, settings: Settings, path: str) -> str:
    """Return a path of this service as its clients have to ask for it."""
    return urlsplit(public_base(request, settings)).path + path
