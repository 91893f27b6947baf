"""Ask an engine and wait for the whole answer."""

from __future__ import annotations

from queue import SimpleQueue

from sienn_ray.inference.engine import Engine, GenerationDelta, GenerationRequest, GenerationResult


def generate(engine: Engine, request: GenerationRequest) -> GenerationResult:
    """The answer to one request.

    Raises:
        SiennError: What the engine says instead.
    """
    deltas: SimpleQueue[GenerationDelta] = SimpleQueue()
    engine.submit(request, deltas.put)
    while True:
        delta = deltas.get()
        if delta.error is not None:
            raise delta.error
        if delta.result is not None:
            return delta.result
