"""Requests that tests ask engines, and a listener for the answers."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult, SamplingParams
from sienn_ray.training.checkpoint_files import ADAPTER_CONFIG

WAIT_S = 60.0
PROMPT = "What is Python?"
GREEDY = GenerationRequest.ask(
    PROMPT, sampling=SamplingParams(max_new_tokens=12, do_sample=False, repetition_penalty=1.0)
)


def sampled(request: GenerationRequest = GREEDY, **changes: Any) -> GenerationRequest:
    """The same request with other sampling."""
    return replace(request, sampling=replace(request.sampling, **changes))


SAMPLED = sampled(do_sample=True, temperature=1.0, top_p=1.0, seed=1)
# An answer that doesn't end by itself for a long time; penalties would keep it from repeating itself.
ENDLESS = sampled(max_new_tokens=1_900)


def with_adapter(name: str, request: GenerationRequest = GREEDY) -> GenerationRequest:
    return replace(request, adapter_id=name, adapter_key=f"adapters/{name}")


class Listener:
    """Collects the deltas of one request."""

    def __init__(self) -> None:
        self.deltas: list[GenerationDelta] = []
        self._has_text = threading.Event()
        self._is_over = threading.Event()

    def __call__(self, delta: GenerationDelta) -> None:
        self.deltas.append(delta)
        self._has_text.set()
        if delta.is_last:
            self._is_over.set()

    @property
    def is_over(self) -> bool:
        """Whether the last delta has come."""
        return self._is_over.is_set()

    def wait_for_text(self) -> None:
        assert self._has_text.wait(WAIT_S)

    def wait(self) -> GenerationDelta:
        """The last delta."""
        assert self._is_over.wait(WAIT_S)
        return self.deltas[-1]

    def result(self) -> GenerationResult:
        """The last delta's result, which has to be one."""
        last = self.wait()
        assert last.result is not None, last.error
        return last.result


def copy_of(folder: Path, parent: Path) -> Path:
    """A copy of a folder, to be changed."""
    return Path(shutil.copytree(folder, parent / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of an adapter's configuration."""
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
