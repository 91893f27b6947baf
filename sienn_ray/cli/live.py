"""Live updates of the service, followed over reconnects."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx2

from sienn_ray.cli.client import credentials, default_url, detail_of, end, patient_stream
from sienn_ray.cli.wording import in_own_words

_CONNECT_TIMEOUT_S = 5.0
# The service has a heartbeat every 15 s.
_SILENCE_S = 60.0
_PAUSE_S = 1.0
# In a row, of one who had been answered before: as long as a restart of the service takes, and longer.
_MAX_FAILURES = 120


def follow(path: str) -> Iterator[tuple[str, Any]]:
    """Follow updates until their `end`; yields name and data of each.

    A connection that breaks is made again, and goes on behind the last update that has come.

    Args:
        path: Path of the updates, with ids as `of` gives them.
    """
    last_id, num_failures, is_answered = "", 0, False
    while True:
        try:
            with _connected(path, last_id) as response:
                if response.is_error and not (is_answered and response.status_code == HTTPStatus.SERVICE_UNAVAILABLE):
                    response.read()
                    end(in_own_words(detail_of(response)))
                for update_id, name, data in _updates(response):
                    last_id, num_failures, is_answered = update_id or last_id, 0, True
                    if name != "lagging":
                        yield name, data
                    if name == "end":
                        return
        except httpx2.HTTPError as error:
            if not is_answered or num_failures >= _MAX_FAILURES:
                end(f"{default_url()} doesn't answer ({error}); start it with `sienn serve`, or set SIENN_URL")
        num_failures += 1
        time.sleep(_PAUSE_S)


def _connected(path: str, last_id: str) -> Any:
    headers = {**credentials(), **({"Last-Event-ID": last_id} if last_id else {})}
    timeout = httpx2.Timeout(_SILENCE_S, connect=_CONNECT_TIMEOUT_S)
    return patient_stream("GET", default_url() + path, headers=headers, timeout=timeout)


def _updates(response: httpx2.Response) -> Iterator[tuple[str, str, Any]]:
    """Id, name and data of server-sent events."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        fields[name] = value
        if name == "data":
            yield fields.get("id", ""), fields.get("event", ""), json.loads(value)
            fields = {}
