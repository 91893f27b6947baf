"""Requests to the service; when it refuses, the program ends with its sentence."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import httpx2
import typer

_CONNECT_TIMEOUT_S = 5.0
# Loading a base model and generating may take minutes; an upload takes as long as it takes.
_READ_TIMEOUT_S = 900.0

JobId = Annotated[str, typer.Argument(help="The job's id.")]
DatasetId = Annotated[str, typer.Argument(help="The dataset's id.")]


def default_url() -> str:
    """Return the service's URL: SIENN_URL, or this machine."""
    return os.environ.get("SIENN_URL") or f"http://127.0.0.1:{os.environ.get('SIENN_PORT', '8000')}"


@contextmanager
def answer(
    method: str, path: str, *, read_timeout_s: float | None = _READ_TIMEOUT_S, **options: Any
) -> Iterator[httpx2.Response]:
    """Ask the service; ends the program with the service's own words when it refuses.

    Args:
        method: HTTP method.
        path: Path, with ids as `of` gives them.
        read_timeout_s: Longest silence; None for any.
        **options: See `httpx2.stream`.
    """
    url = default_url()
    timeout = httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S, read=read_timeout_s)
    try:
        with httpx2.stream(method, url + path, timeout=timeout, **options) as response:
            if response.is_error:
                response.read()
                end(_detail(response))
            yield response
    except httpx2.HTTPError as error:
        end(f"{url} doesn't answer ({error}); start it with `sienn serve`, or set SIENN_URL")


def call(method: str, path: str, **options: Any) -> Any:
    """Ask the service and return its JSON."""
    with answer(method, path, **options) as response:
        return json.loads(response.read())


def events(path: str, body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Post a request that is answered with server-sent events; yields name and data of each as they come."""
    name = ""
    with answer("POST", path, json=body) as response:
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)
                name = ""


def of(user_id: str) -> str:
    """An id as part of a path, whatever a user typed."""
    return quote(user_id, safe="") or "-"


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:500]}"


def end(message: str) -> NoReturn:
    """End the program with an error."""
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(1)
