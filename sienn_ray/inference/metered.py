"""An engine with metrics."""

from __future__ import annotations

from collections.abc import Callable

from sienn_ray.inference.engine import Engine, Generation, GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.metrics import (
    ADAPTER_CACHE_HITS_TOTAL,
    ADAPTER_CACHE_MISSES_TOTAL,
    ADAPTERS_LOADED,
    GENERATION_TOKENS_TOTAL,
    PROMPT_TOKENS_TOTAL,
    TIME_TO_FIRST_TOKEN_SECONDS,
    Meter,
)


class MeteredEngine:
    """Counts the answers of an engine, cancelled ones included.

    Args:
        engine: The engine.
        meter: Receives the measurements.
        base_model: Hub id, the label of all measurements.
    """

    def __init__(self, engine: Engine, meter: Meter, base_model: str) -> None:
        self._engine = engine
        self._meter = meter
        self._base_model = base_model

    @property
    def num_cpus(self) -> int | None:
        """See `Engine.num_cpus`."""
        return self._engine.num_cpus

    @property
    def num_adapters(self) -> int:
        """See `Engine.num_adapters`."""
        return self._engine.num_adapters

    @property
    def stuck_s(self) -> float:
        """See `Engine.stuck_s`."""
        return self._engine.stuck_s

    @property
    def failure(self) -> str | None:
        """See `Engine.failure`."""
        return self._engine.failure

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        """See `Engine.submit`."""

        def note(delta: GenerationDelta) -> None:
            if delta.result is not None:
                self._note(request, delta.result)
            listener(delta)

        return self._engine.submit(request, note)

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """See `Engine.load_adapter`; no request, so neither a hit nor a miss."""
        self._engine.load_adapter(adapter_id, adapter_key)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()

    def kill(self) -> None:
        """See `Engine.kill`."""
        self._engine.kill()

    def _note(self, request: GenerationRequest, result: GenerationResult) -> None:
        self._meter.inc(PROMPT_TOKENS_TOTAL, result.num_prompt_tokens, base_model=self._base_model)
        self._meter.inc(GENERATION_TOKENS_TOTAL, result.num_generated_tokens, base_model=self._base_model)
        if result.time_to_first_token_s is not None:
            self._meter.observe(TIME_TO_FIRST_TOKEN_SECONDS, result.time_to_first_token_s, base_model=self._base_model)
        if request.adapter_id is not None:
            metric = ADAPTER_CACHE_HITS_TOTAL if result.adapter_cached else ADAPTER_CACHE_MISSES_TOTAL
            self._meter.inc(metric, base_model=self._base_model)

    def show(self) -> None:
        """Set the gauge of loaded adapters; gauges expire unless they are set every few seconds."""
        self._meter.set(ADAPTERS_LOADED, self.num_adapters, base_model=self._base_model)
