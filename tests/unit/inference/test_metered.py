from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from sienn_ray.errors import EngineError
from sienn_ray.inference.engine import GenerationRequest, GenerationResult
from sienn_ray.inference.metered import MeteredEngine
from sienn_ray.metrics import Recorder

PLAIN = GenerationRequest(prompt="What is Python?")
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


class FakeEngine:
    """Answers with `result`, or raises `error`."""

    def __init__(self) -> None:
        self.result = ANSWER
        self.error: Exception | None = None
        self.num_adapters = 0

    def generate(self, request: GenerationRequest, cancelled: threading.Event | None = None) -> GenerationResult:
        if self.error is not None:
            raise self.error
        return self.result


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
    assert metered.generate(PLAIN) is ANSWER
    metered.generate(PLAIN)
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
        metered.generate(ADAPTED)
    counts = counted(recorder)
    assert (counts["sienn_adapter_cache_hits_total"], counts["sienn_adapter_cache_misses_total"]) == (2, 1)


def test_answer_without_a_token_has_no_first_one(
    metered: MeteredEngine, engine: FakeEngine, recorder: Recorder
) -> None:
    engine.result = replace(ANSWER, num_generated_tokens=0, time_to_first_token_s=None)
    metered.generate(PLAIN)
    assert counted(recorder) == {"sienn_prompt_tokens_total": 9}


def test_failure_passes_through_uncounted(metered: MeteredEngine, engine: FakeEngine, recorder: Recorder) -> None:
    engine.error = EngineError("no such adapter")
    with pytest.raises(EngineError):
        metered.generate(ADAPTED)
    assert recorder.take() is None


def test_loaded_adapters_are_shown_when_asked_for(
    metered: MeteredEngine, engine: FakeEngine, recorder: Recorder
) -> None:
    engine.num_adapters = 3
    metered.show()
    assert counted(recorder) == {"sienn_adapters_loaded": 3}
