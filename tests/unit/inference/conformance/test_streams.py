"""Streams: deltas in order, stop strings, and requests that are cancelled."""

from __future__ import annotations

from sienn_ray.errors import EngineError
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import Engine, GenerationDelta
from tests.unit.inference.asking import ENDLESS, GREEDY, Listener, sampled, with_adapter
from tests.unit.inference.conformance.conftest import Start


def test_deltas_together_are_the_answer(engine: Engine) -> None:
    listener = Listener()
    engine.submit(with_adapter("plus"), listener)
    result = listener.result()
    assert "".join(delta.text for delta in listener.deltas) == result.text
    assert [delta.is_last for delta in listener.deltas] == [False] * (len(listener.deltas) - 1) + [True]
    assert len(listener.deltas) > 3


def test_text_comes_before_the_end(engine: Engine) -> None:
    listener = Listener()
    generation = engine.submit(ENDLESS, listener)
    listener.wait_for_text()
    assert not listener.is_over
    generation.cancel()
    listener.wait()


def test_a_listener_that_fails_harms_no_other(engine: Engine) -> None:
    def fail(delta: GenerationDelta) -> None:
        raise RuntimeError("Event loop is closed")

    expected = generate(engine, with_adapter("plus")).text
    engine.submit(with_adapter("plus"), fail)
    assert generate(engine, with_adapter("plus")).text == expected


class TestStopStrings:
    def test_they_end_the_answer_and_are_no_part_of_it(self, engine: Engine) -> None:
        text = generate(engine, with_adapter("plus")).text
        # Without blanks at its ends: the engine looks for it before it strips the text.
        stop = text[len(text) // 2 : len(text) // 2 + 3].strip()
        listener = Listener()
        engine.submit(sampled(with_adapter("plus"), stop=("never said", stop)), listener)
        result = listener.result()
        assert (result.text, result.finish_reason) == (text[: text.index(stop)].rstrip(), "stop")
        assert "".join(delta.text for delta in listener.deltas) == result.text

    def test_one_that_is_only_begun_is_said(self, engine: Engine) -> None:
        text = generate(engine, with_adapter("plus")).text
        result = generate(engine, sampled(with_adapter("plus"), stop=(text[-2:] + "never said",)))
        assert (result.text, result.finish_reason) == (text, "length")


class TestCancel:
    def test_in_the_middle_it_ends_with_what_there_is(self, start: Start) -> None:
        engine = start(engine_max_batch=1)
        listener = Listener()
        generation = engine.submit(ENDLESS, listener)
        listener.wait_for_text()
        generation.cancel()
        result = listener.result()
        assert result.finish_reason == "cancelled"
        assert result.num_generated_tokens < 1_900
        assert "".join(delta.text for delta in listener.deltas) == result.text
        assert generate(engine, GREEDY).num_generated_tokens == 12

    def test_at_once_it_ends_too(self, start: Start) -> None:
        engine = start(engine_max_batch=1, engine_max_queue=1)
        for _ in range(5):
            listener = Listener()
            engine.submit(ENDLESS, listener).cancel()
            last = listener.wait()
            assert isinstance(last.error, EngineError) or last.result is not None
            assert last.result is None or last.result.finish_reason == "cancelled"
        assert generate(engine, GREEDY).num_generated_tokens == 12

    def test_in_the_queue_it_waits_for_no_other(self, start: Start) -> None:
        engine = start(engine_max_batch=1, engine_max_queue=1)
        first, second, third = Listener(), Listener(), Listener()
        running = engine.submit(ENDLESS, first)
        first.wait_for_text()
        engine.submit(GREEDY, second).cancel()
        assert isinstance(second.wait().error, EngineError)
        assert not first.is_over
        engine.submit(GREEDY, third)
        running.cancel()
        assert third.result().num_generated_tokens == 12

    def test_adapter_and_memory_of_each_are_free_again(self, start: Start) -> None:
        one_token = 2 * 2 * 1 * 32 * 4  # layers, keys and values, key heads, head size, float32
        engine = start(adapter_cache_max_count=1, engine_kv_cache_bytes=96 * one_token)
        for name in ("plus", "minus", "half", "plus"):
            running, waiting = Listener(), Listener()
            generation = engine.submit(sampled(with_adapter(name), max_new_tokens=50), running)
            running.wait_for_text()
            engine.submit(with_adapter("plus" if name == "half" else "half"), waiting).cancel()
            generation.cancel()
            running.wait()
            waiting.wait()
        assert generate(engine, with_adapter("minus")).num_generated_tokens == 12
        assert engine.num_adapters == 1

    def test_after_the_end_nothing_comes(self, engine: Engine) -> None:
        listener = Listener()
        generation = engine.submit(GREEDY, listener)
        listener.wait()
        deltas = list(listener.deltas)
        generation.cancel()
        generate(engine, GREEDY)
        assert listener.deltas == deltas
