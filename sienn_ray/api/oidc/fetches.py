"""JSON documents of an issuer, fetched within bounds of time and size, and never from another place than asked."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2

from sienn_ray.errors import IssuerError
from sienn_ray.settings import is_loopback

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
MAX_BYTES = 512 * 1024
_WHAT = "the issuer of SIENN_OIDC_ISSUER"

Json = dict[str, Any]


class Fetches:
    """Fetches JSON objects.

    Args:
        allows_http: Whether to fetch without TLS from other addresses than loopback ones.
    """

    def __init__(self, *, allows_http: bool = False) -> None:
        self._allows_http = allows_http

    def check(self, url: object) -> str:
        """Return a URL that may be fetched from, or lead a browser to.

        Raises:
            IssuerError: It has no TLS, or is no URL.
        """
        try:
            parts = urlsplit(url) if isinstance(url, str) else None
            host = parts.hostname if parts else None
        except ValueError:
            parts = host = None
        if not isinstance(url, str) or parts is None or not host or parts.scheme not in {"http", "https"}:
            raise _refused("a URL in its documents is none")
        if parts.scheme == "http" and not self._allows_http and not is_loopback(host):
            raise _refused("a URL in its documents has no TLS")
        return url

    async def get(self, url: str) -> Json:
        """Return a document.

        Raises:
            IssuerError: It can't be had.
        """
        return (await self._send("GET", url))[1]

    async def post_form(
        self, url: str, form: Mapping[str, str], basic: tuple[str, str] | None = None
    ) -> tuple[int, Json]:
        """Send a form and return the status and the document that answers it.

        Args:
            url: Where to.
            form: Its fields.
            basic: Name and password for the header `Authorization`.

        Raises:
            IssuerError: There is no such answer.
        """
        return await self._send("POST", url, data=dict(form), auth=basic)

    async def _send(self, method: str, url: str, **options: Any) -> tuple[int, Json]:
        self.check(url)
        # Not compressed, so that what is counted is what has come.
        accepted = {"Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client,
                client.stream(method, url, headers=accepted, **options) as response,
            ):
                if method == "GET" and response.status_code != httpx2.codes.OK:
                    raise _refused(f"it answers {response.status_code}")
                content = bytearray()
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise _refused(f"a document of it has more than {MAX_BYTES} bytes")
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            logger.warning("%s can't be asked: %s", _WHAT, type(error).__name__)
            raise IssuerError.of(_WHAT, error) from None
        try:
            document = json.loads(bytes(content))
        except (ValueError, RecursionError):
            raise _refused(f"it answers {response.status_code} with something else than JSON") from None
        if not isinstance(document, dict):
            raise _refused("a document of it is no JSON object")
        return response.status_code, document


def _refused(words: str) -> IssuerError:
    logger.warning("%s can't be used: %s", _WHAT, words)
    return IssuerError(f"{_WHAT} can't be used: {words}; try again in a while", 30)
