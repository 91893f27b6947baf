"""Clients of a server that has the OpenAI route `POST /v1/completions`; the standard library alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from serving_load import Answer, Load, Request

_TIMEOUT_S = 900.0
_START_S = 900.0


class Clients:
    """As many clients as a load has concurrent requests, each with a thread of its own.

    Each request has a connection of its own: llama.cpp's server now and then closes one that it said it would keep.

    Args:
        port: Of the server, on this machine.
        body: What a request has beside its prompt, length, greedy choice and streaming.
        facts: What is to be told of the server.
        is_streaming: Answers come token by token; else whole, and their first token counts as there with the last.
    """

    def __init__(
        self,
        port: int,
        body: Callable[[Request], dict[str, Any]],
        facts: dict[str, Any],
        *,
        is_streaming: bool = True,
    ) -> None:
        self._port = port
        self._body = body
        self._is_streaming = is_streaming
        self.facts = facts

    def __call__(self, load: Load) -> Sequence[Answer]:
        answers: dict[int, Answer] = {}
        waiting = iter(list(enumerate(load.requests)))
        lock = threading.Lock()
        failures: list[Exception] = []

        def go_on() -> None:
            try:
                while not failures:
                    with lock:
                        number, request = next(waiting, (None, None))
                    if number is None or request is None:
                        return
                    answers[number] = self._ask(request)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=go_on) for _ in range(load.concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return [answers[number] for number in sorted(answers)]

    def _ask(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.connect()
            return self._answer(connection, request)

    def _answer(self, connection: http.client.HTTPConnection, request: Request) -> Answer:
        body = {
            "prompt": request.prompt,
            "max_tokens": request.max_new_tokens,
            "temperature": 0,
            **({"stream": True, "stream_options": {"include_usage": True}} if self._is_streaming else {}),
            **self._body(request),
        }
        answer = Answer(time.perf_counter())
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        # Else the first piece of text could wait 40 ms for our acknowledgement of the headers.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{response.status}: {response.read().decode(errors='replace')[:2000]}")
        for event in _events(response) if self._is_streaming else [json.load(response)]:
            _take(answer, event)
        return answer


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Server-sent events with JSON in them, until the last one."""
    for line in response:
        if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
            event = json.loads(data)
            if "error" in event:
                raise RuntimeError(str(event["error"]))
            yield event


def _take(answer: Answer, event: dict[str, Any]) -> None:
    """Note an event. The times are those of the text's pieces, the number of tokens is the server's own."""
    now_s = time.perf_counter()
    text = "".join(choice.get("text") or "" for choice in event.get("choices") or [])
    if text:
        answer.first_s = answer.first_s or now_s
        answer.last_s = now_s
        answer.text += text
    if usage := event.get("usage"):
        answer.num_tokens = usage["completion_tokens"]
        answer.num_prompt_tokens = usage["prompt_tokens"]


@contextlib.contextmanager
def server(command: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A server as a process of its own, with all that it starts; ended at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield
    except Exception as error:
        if process.poll() is not None:
            said = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the server ended with {process.returncode}: {said}") from error
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(port: int, log: Path) -> None:
    """Wait until `GET /health` is answered with a 200.

    Raises:
        RuntimeError: It isn't in time; the message has the end of the log.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5),
        ):
            return
        time.sleep(0.5)
    raise RuntimeError(f"no answer within {_START_S:.0f} s:\n{log.read_text()[-3000:]}")
