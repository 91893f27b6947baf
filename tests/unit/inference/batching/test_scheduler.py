from __future__ import annotations

import pytest

from sienn_ray.errors import CapacityError
from sienn_ray.inference.batching.generation import AdapterUse, RunningGeneration
from sienn_ray.inference.batching.scheduler import Scheduler
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, SamplingParams
from sienn_ray.inference.model.kv_blocks import BlockPool
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.text.vocabulary import Vocabulary
from sienn_ray.settings import Settings
from tests.unit.inference.small_tokenizers import byte_level

TOKENIZER = byte_level()
SETTINGS = Settings(env="test", engine_max_batch=2)
STEP_TOKENS = 6


@pytest.fixture
def pool() -> BlockPool:
    return BlockPool(8, 4)


@pytest.fixture
def scheduler(pool: BlockPool) -> Scheduler:
    return Scheduler(pool, SETTINGS, STEP_TOKENS)


def waiting(
    scheduler: Scheduler, prompt: str, deltas: list[GenerationDelta] | None = None, adapter: str | None = None
) -> RunningGeneration:
    """A request in the queue that may add 2 tokens to its prompt."""
    request = GenerationRequest(prompt, sampling=SamplingParams(max_new_tokens=2))
    generation = RunningGeneration(request, (deltas if deltas is not None else []).append)
    prompts = PromptEncoder("org/base", TOKENIZER, context_tokens=None)
    generation.read(prompts.encode(request), Vocabulary(TOKENIZER), adapter_cached=True)
    generation.prepare(AdapterUse(adapter or "org/base", adapter), len(TOKENIZER))
    scheduler.add(generation)
    return generation


def compute(scheduler: Scheduler) -> list[int]:
    """Compute a step; gives its numbers of tokens."""
    rows = scheduler.plan()
    for generation, row in rows:
        generation.num_computed += row.num_new
    return [row.num_new for _, row in rows]


def test_as_many_join_as_fit_into_the_batch(scheduler: Scheduler) -> None:
    requests = [waiting(scheduler, prompt) for prompt in ("abc", "def", "ghi")]
    scheduler.admit()
    assert scheduler.running == requests[:2]
    requests[0].cancel()
    scheduler.drop_abandoned()
    scheduler.admit()
    assert scheduler.running == requests[1:]
    assert not scheduler.is_idle


def test_a_request_whose_adapter_has_no_room_beside_others_waits_until_they_leave(pool: BlockPool) -> None:
    settings = Settings(env="test", engine_max_batch=8)
    scheduler = Scheduler(pool, settings, STEP_TOKENS, lambda names: len(names) <= 1)
    first, second, without, last = (waiting(scheduler, "ab", adapter=name) for name in ("a", "a", None, "b"))
    scheduler.admit()
    assert set(scheduler.running) == {first, second, without}
    first.cancel()
    second.cancel()
    scheduler.drop_abandoned()
    scheduler.admit()
    assert set(scheduler.running) == {without, last}


def test_none_joins_without_blocks_for_its_longest_answer(scheduler: Scheduler, pool: BlockPool) -> None:
    large, small = waiting(scheduler, "a" * 26), waiting(scheduler, "bcd")
    scheduler.admit()
    assert pool.num_free == 1
    assert scheduler.running == [large]
    large.cancel()
    scheduler.drop_abandoned()
    scheduler.admit()
    assert scheduler.running == [small]


def test_prompts_are_prefilled_in_chunks_behind_those_that_decode(scheduler: Scheduler) -> None:
    first = waiting(scheduler, "abc")
    scheduler.admit()
    assert compute(scheduler) == [3]
    first.tokens.append(5)
    waiting(scheduler, "d" * 12)
    scheduler.admit()
    assert compute(scheduler) == [1, 5]
    first.tokens.append(5)
    assert compute(scheduler) == [1, 5]


def test_a_prefilled_prompt_and_what_was_computed_stay_in_the_prefix_cache(scheduler: Scheduler) -> None:
    first = waiting(scheduler, "a" * 6)
    scheduler.admit()
    compute(scheduler)
    scheduler.note_prefilled(first)
    second = waiting(scheduler, "a" * 6)
    scheduler.admit()
    assert second.num_computed == 4
    for generation in (first, second):
        generation.cancel()
    scheduler.drop_abandoned()
    assert scheduler.is_idle
    third = waiting(scheduler, "a" * 6)
    scheduler.admit()
    assert third.num_computed == 4


def test_a_request_waits_no_longer_than_it_may(pool: BlockPool) -> None:
    deltas: list[GenerationDelta] = []
    scheduler = Scheduler(pool, SETTINGS.model_copy(update={"engine_queue_timeout_s": 0.0}), STEP_TOKENS)
    late = waiting(scheduler, "abc", deltas)
    late.arrived_at -= 1.0
    scheduler.drop_abandoned()
    assert isinstance(deltas[-1].error, CapacityError)
    assert "SIENN_ENGINE_QUEUE_TIMEOUT_S" in deltas[-1].error.message
    assert scheduler.is_idle


def test_blocks_of_all_that_leave_are_free(scheduler: Scheduler, pool: BlockPool) -> None:
    for prompt in ("abc", "defgh", "i" * 9):
        waiting(scheduler, prompt).cancel()
        waiting(scheduler, prompt)
        scheduler.drop_abandoned()
        scheduler.admit()
        for generation in list(scheduler.running):
            generation.cancel()
        scheduler.drop_abandoned()
    assert pool.num_free == 8
