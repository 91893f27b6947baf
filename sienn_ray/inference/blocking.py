"""Blocking calls of an engine."""

from __future__ import annotations

from queue import SimpleQueue

from sienn_ray.inference.engine import Engine, GenerationDelta, GenerationRequest, GenerationResult


def generate(engine: Engine, request: GenerationRequest) -> GenerationResult:
    """Submit a request and wait for the whole answer.

    Raises:
        SiennError: The error that ended it.
    """
    deltas: SimpleQueue[GenerationDelta] = SimpleQueue()
    engine.submit(request, deltas.put)
    while True:
        delta = deltas.get()
        if delta.error is not None:
            raise delta.error
        if delta.result is not None:
            return delta.result
