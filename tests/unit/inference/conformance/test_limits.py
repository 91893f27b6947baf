"""Limits and ends: what is too long, too many or too late, and engines that are closed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sienn_ray.errors import CapacityError, InvalidBaseModelError, InvalidInputError, QueueFullError
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import Engine, GenerationDelta
from tests.unit.inference.asking import ENDLESS, GREEDY, WAIT_S, Listener, sampled, with_adapter
from tests.unit.inference.conformance.conftest import Start


def test_unknown_base_model(start: Start) -> None:
    with pytest.raises(InvalidBaseModelError, match="not in the local cache"):
        start("nobody/nothing")


class TestLength:
    def test_prompt_that_does_not_fit(self, engine: Engine) -> None:
        request = replace(GREEDY, prompt="word " * 2_100)
        with pytest.raises(InvalidInputError, match=r"the 2048 tokens of .* leave no room for an answer"):
            generate(engine, request)

    def test_prompt_that_just_fits_is_answered_and_one_token_more_is_not(self, engine: Engine) -> None:
        num_prompt_tokens = generate(engine, GREEDY).num_prompt_tokens
        fits = 2_048 - num_prompt_tokens
        listener = Listener()
        engine.submit(sampled(max_new_tokens=fits), listener).cancel()
        assert not isinstance(listener.wait().error, InvalidInputError)
        with pytest.raises(InvalidInputError, match=f"prompt has {num_prompt_tokens} tokens"):
            generate(engine, sampled(max_new_tokens=fits + 1))

    def test_prompt_without_tokens(self, engine: Engine) -> None:
        with pytest.raises(InvalidInputError, match="prompt has no tokens"):
            generate(engine, replace(GREEDY, prompt=""))

    def test_a_prompt_that_is_refused_leaves_its_adapter_free(self, start: Start) -> None:
        engine = start(adapter_cache_max_count=1)
        for name in ("plus", "minus"):
            with pytest.raises(InvalidInputError):
                generate(engine, with_adapter(name, sampled(max_new_tokens=4_000)))
        assert generate(engine, with_adapter("half")).num_generated_tokens == 12


class TestQueue:
    def test_full_queue_is_refused(self, start: Start) -> None:
        engine = start(engine_max_batch=1, engine_max_queue=1)
        first, second = Listener(), Listener()
        generation = engine.submit(ENDLESS, first)
        first.wait_for_text()
        engine.submit(GREEDY, second)
        refused = Listener()
        with pytest.raises(QueueFullError, match="SIENN_ENGINE_MAX_QUEUE"):
            engine.submit(GREEDY, refused)
        generation.cancel()
        assert second.result().num_generated_tokens == 12
        assert refused.deltas == []

    def test_long_wait_ends_in_an_error(self, start: Start) -> None:
        engine = start(engine_max_batch=1, engine_queue_timeout_s=0.2)
        first, second = Listener(), Listener()
        generation = engine.submit(ENDLESS, first)
        first.wait_for_text()
        engine.submit(GREEDY, second)
        error = second.wait().error
        assert isinstance(error, CapacityError)
        assert "SIENN_ENGINE_QUEUE_TIMEOUT_S" in error.message
        assert not first.is_over
        generation.cancel()

    def test_time_to_the_first_token_counts_the_wait_for_a_place(self, start: Start) -> None:
        engine = start(engine_max_batch=1)
        with ThreadPoolExecutor(max_workers=4) as pool:
            results = list(pool.map(lambda request: generate(engine, request), [GREEDY] * 4))
        waits = sorted(result.time_to_first_token_s or 0.0 for result in results)
        # The request that came last waited for the others' answers.
        assert waits[-1] > min(result.generation_time_s for result in results)


class TestClose:
    def test_every_stream_ends_with_an_error(self, start: Start) -> None:
        engine = start(engine_max_batch=1)
        running, waiting, loading = Listener(), Listener(), Listener()
        engine.submit(ENDLESS, running)
        running.wait_for_text()
        engine.submit(GREEDY, waiting)
        engine.submit(with_adapter("plus"), loading)
        engine.close()
        for listener in (running, waiting, loading):
            assert isinstance(listener.wait().error, CapacityError)
            assert sum(delta.is_last for delta in listener.deltas) == 1

    def test_nothing_is_accepted_afterwards(self, engine: Engine) -> None:
        engine.close()
        listener = Listener()
        with pytest.raises(CapacityError, match="is stopping"):
            engine.submit(GREEDY, listener)
        assert listener.deltas == []

    def test_a_repeat_changes_nothing(self, engine: Engine) -> None:
        generate(engine, GREEDY)
        engine.close()
        engine.close()
        assert engine.stuck_s == 0.0

    def test_a_load_that_waits_for_room_does_not_hold_it_up(self, start: Start) -> None:
        engine = start(adapter_cache_max_count=1)
        running, waiting = Listener(), Listener()
        engine.submit(with_adapter("plus", ENDLESS), running)
        running.wait_for_text()
        engine.submit(with_adapter("minus"), waiting)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(engine.close).result(WAIT_S)
        assert isinstance(waiting.wait().error, CapacityError)

    def test_requests_that_come_meanwhile_are_refused_or_end(self, start: Start) -> None:
        engine = start(engine_max_queue=1_000)
        listeners: list[Listener] = []

        def ask() -> None:
            while True:
                listener = Listener()
                try:
                    engine.submit(ENDLESS, listener)
                except CapacityError:
                    return
                listeners.append(listener)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            engine.close()
            asking.result(WAIT_S)
        assert all(listener.wait().error for listener in listeners)


class TestFailure:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it dies on purpose
    def test_a_dead_thread_is_unhealthy_and_holds_no_request(self, start: Start) -> None:
        engine = start(engine_max_batch=1)
        is_asked = threading.Event()
        running, waiting, refused = Listener(), Listener(), Listener()

        def die(delta: GenerationDelta) -> None:
            running(delta)
            if not delta.is_last:
                assert is_asked.wait(WAIT_S)
                raise SystemExit  # in a thread of the engine, which it ends

        healthy = engine.failure
        assert healthy is None
        engine.submit(ENDLESS, die)
        running.wait_for_text()
        engine.submit(GREEDY, waiting)
        is_asked.set()
        for listener in (running, waiting):
            assert isinstance(listener.wait().error, CapacityError)
        assert engine.failure is not None
        with pytest.raises(CapacityError, match="has failed and is being replaced; ask again"):
            engine.submit(GREEDY, refused)
        assert refused.deltas == []

    def test_one_that_is_closed_has_not_failed(self, engine: Engine) -> None:
        generate(engine, GREEDY)
        engine.close()
        assert engine.failure is None
