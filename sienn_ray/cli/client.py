"""Requests to the service; when it refuses, the program ends with its sentence."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import httpx2
import typer

from sienn_ray.cli.wording import in_own_words

_CONNECT_TIMEOUT_S = 5.0
# Loading a base model and generating may take minutes; an upload takes as long as it takes.
_READ_TIMEOUT_S = 900.0
_PAUSES_S = (0.5, 2.0)
_MAX_PORT = 65535
# Of commands that are held up by a rate limit.
_LONGEST_WAIT_S = 120

JobId = Annotated[str, typer.Argument(help="The job's id.")]
DatasetId = Annotated[str, typer.Argument(help="The dataset's id.")]


def default_url() -> str:
    """Return the service's URL: SIENN_URL, or this machine's port SIENN_PORT."""
    url = os.environ.get("SIENN_URL", "").strip().rstrip("/")
    if url:
        if not url.startswith(("http://", "https://")):
            end(f"SIENN_URL is '{url}', but must begin with http:// or https://, as in http://127.0.0.1:8000")
        return url
    port = os.environ.get("SIENN_PORT", "") or "8000"
    if not (port.isdecimal() and 1 <= int(port) <= _MAX_PORT):
        end(f"SIENN_PORT is '{port}', but must be a number from 1 to {_MAX_PORT}")
    return f"http://127.0.0.1:{port}"


def credentials() -> dict[str, str]:
    """Return the headers that say who asks: the key in SIENN_API_KEY, if there is one."""
    key = os.environ.get("SIENN_API_KEY", "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def answer(
    method: str,
    path: str,
    *,
    read_timeout_s: float | None = _READ_TIMEOUT_S,
    other_names: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[httpx2.Response]:
    """Ask the service; ends the program with the service's own words when it refuses.

    Args:
        method: HTTP method.
        path: Path, with ids as `of` gives them.
        read_timeout_s: Longest silence; None for any.
        other_names: See `in_own_words`.
        **options: See `httpx2.stream`.
    """
    url = default_url()
    timeout = httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S, read=read_timeout_s)
    try:
        headers = {**credentials(), **options.pop("headers", {})}
        with patient_stream(method, url + path, timeout=timeout, headers=headers, **options) as response:
            if response.is_error:
                response.read()
                end(in_own_words(detail_of(response), other_names=other_names))
            yield response
    except httpx2.InvalidURL as error:
        end(f"SIENN_URL is '{url}', which is no URL ({error}); write it as in http://127.0.0.1:8000")
    except httpx2.HTTPError as error:
        end(f"{url} doesn't answer ({error}); start it with `sienn serve`, or set SIENN_URL")


@contextmanager
def patient_stream(method: str, url: str, **options: Any) -> Iterator[httpx2.Response]:
    """Send a request; one that only looks at something is sent again where too many came before."""
    while True:
        with httpx2.stream(method, url, **options) as response:
            wait_s = _wait_s(response) if method == "GET" else None
            if wait_s is None:
                yield response
                return
        sys.stderr.write(f"the service takes no more requests for {wait_s} s; waiting\n")
        time.sleep(wait_s)


def _wait_s(response: httpx2.Response) -> int | None:
    """Seconds until a request that was one too many may be sent again, if it is one that is worth the wait."""
    retry_after = response.headers.get("Retry-After", "")
    if response.status_code != HTTPStatus.TOO_MANY_REQUESTS or not retry_after.isdecimal():
        return None
    return int(retry_after) if int(retry_after) <= _LONGEST_WAIT_S else None


def call(method: str, path: str, **options: Any) -> Any:
    """Ask the service and return its JSON."""
    with answer(method, path, **options) as response:
        return json.loads(response.read())


def call_once(
    method: str, path: str, idempotency_key: str, *, pauses_s: Sequence[float] = _PAUSES_S, **options: Any
) -> Any:
    """Ask as `call` does, and again where the service is busy or the connection breaks: the key has it done once.

    Args:
        method: HTTP method.
        path: Path.
        idempotency_key: Sent each time.
        pauses_s: Seconds before each repeat.
        **options: See `httpx2.request`.
    """
    headers = {"Idempotency-Key": idempotency_key, **credentials()}
    timeout = httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    for pause_s in pauses_s:
        try:
            response = httpx2.request(method, default_url() + path, headers=headers, timeout=timeout, **options)
        except httpx2.ConnectError:  # nobody is there
            break
        except httpx2.TransportError:
            pass
        else:
            if response.is_error and response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                end(in_own_words(detail_of(response)))
            if response.is_success:
                return response.json()
        time.sleep(pause_s)
    return call(method, path, headers=headers, **options)


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


def detail_of(response: httpx2.Response) -> str:
    """Return what the service says of a request that it has refused."""
    if response.status_code == HTTPStatus.UNAUTHORIZED and not credentials():
        return "this needs an API key; put one into SIENN_API_KEY (an admin makes one with `sienn keys create`)"
    try:
        where = "; SIENN_API_KEY has it" if response.status_code == HTTPStatus.UNAUTHORIZED else ""
        return str(response.json()["detail"]) + where
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:500]}"


def end(message: str) -> NoReturn:
    """End the program with an error."""
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(1)
