from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sienn_ray.errors import EngineError, SiennError
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import Generation, GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.inference.metered import MeteredEngine
from sienn_ray.metrics import Recorder

PLAIN = GenerationRequest.ask("What is Python?")
ADAPTED = replace(PLAIN, adapter_id="job-1", adapter_key="adapters/job-1")
ANSWER = GenerationResult(
    text="A language.",
    rendered_prompt="What is Python?",
    num_prompt_tokens=9,
    num_generated_tokens=4,
    finish_reason="stop",
    adapter_cached=True,
    generation_time_s=1.5,
    time_to_first_token_s=0.3,
)


class FakeGeneration:
    """Is over at once."""

    def cancel(self) -> None:
        return None


class FakeEngine:
    """Answers with `result`, or `error`."""

    def __init__(self) -> None:
        self.result = ANSWER
        self.error: SiennError | None = None
        self.num_cpus: int | None = None
        self.num_adapters = 0
        self.stuck_s = 0.0
        self.failure: str | None = None
        self.is_closed = False

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        listener(GenerationDelta("A "))
        if self.error is not None:
            listener(GenerationDelta(error=self.error))
        else:
            listener(GenerationDelta("language.", result=self.result))
        return FakeGeneration()

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        self.num_adapters += 1

    def close(self) -> None:
        self.is_closed = True

    def kill(self) -> None:
        self.is_killed = True


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def metered(engine: FakeEngine, recorder: Recorder) -> MeteredEngine:
    return MeteredEngine(engine, recorder, "org/model")


def counted(recorder: Recorder) -> dict[str, float]:
    batch = recorder.take()
    assert batch is not None
    assert all(dict(sample.labels)["base_model"] == "org/model" for sample in (*batch.increments, *batch.gauges))
    return {sample.name: sample.value for sample in (*batch.increments, *batch.gauges)}


def test_tokens_and_time_to_first_token(metered: MeteredEngine, recorder: Recorder) -> None:
    assert generate(metered, PLAIN) is ANSWER
    generate(metered, PLAIN)
    assert counted(recorder) == {
        "sienn_prompt_tokens_total": 18,
        "sienn_generation_tokens_total": 8,
        "sienn_time_to_first_token_seconds_bucket": 2,
        "sienn_time_to_first_token_seconds_sum": 0.6,
        "sienn_time_to_first_token_seconds_count": 2,
    }


def test_hits_and_misses_of_adapters(metered: MeteredEngine, engine: FakeEngine, recorder: Recorder) -> None:
    for is_cached in (False, True, True):
        engine.result = replace(ANSWER, adapter_cached=is_cached)
        generate(metered, ADAPTED)
    counts = counted(recorder)
    assert (counts["sienn_adapter_cache_hits_total"], counts["sienn_adapter_cache_misses_total"]) == (2, 1)


def test_answer_without_a_token_has_no_first_one(
    metered: MeteredEngine, engine: FakeEngine, recorder: Recorder
) -> None:
    engine.result = replace(ANSWER, num_generated_tokens=0, time_to_first_token_s=None)
    generate(metered, PLAIN)
    assert counted(recorder) == {"sienn_prompt_tokens_total": 9}


def test_failure_passes_through_uncounted(metered: MeteredEngine, engine: FakeEngine, recorder: Recorder) -> None:
    engine.error = EngineError("no such adapter")
    with pytest.raises(EngineError):
        generate(metered, ADAPTED)
    assert recorder.take() is None


def test_loaded_adapters_are_shown_when_asked_for(
    metered: MeteredEngine, engine: FakeEngine, recorder: Recorder
) -> None:
    engine.num_adapters = 3
    metered.show()
    assert counted(recorder) == {"sienn_adapters_loaded": 3}


def test_deltas_pass_through(metered: MeteredEngine) -> None:
    deltas: list[GenerationDelta] = []
    metered.submit(PLAIN, deltas.append)
    assert [delta.text for delta in deltas] == ["A ", "language."]
    assert deltas[-1].result is ANSWER


def test_the_engine_behind_it_is_seen(metered: MeteredEngine, engine: FakeEngine) -> None:
    engine.stuck_s, engine.num_cpus = 3.0, 2
    assert (metered.stuck_s, metered.num_cpus) == (3.0, 2)
    metered.close()
    assert engine.is_closed
