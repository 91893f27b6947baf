"""Speed of our engine: whole requests, single decoding steps, prefill, placing an adapter, sampling."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from checks import Check, Figure, NotThere, Place
from correctness_graphs import graph_figures

if TYPE_CHECKING:
    from serving_runs import Answered

_NUM_REQUESTS = (1, 8, 32)
_PROMPT_TOKENS, _ANSWER_TOKENS, _NUM_ADAPTERS = 256, 64, 4
# Milliseconds of the 8B shape.
_GOAL_STEP_MS, _GOAL_PLACING_MS, _GOAL_SAMPLING_MS = 15.0, 5.0, 1.0
_REPEATS = 10


def requests(shape: str, place: Place) -> Iterator[Figure]:
    """Answer whole requests, without and with adapters."""
    from serving_runs import ask, engine_of

    began = time.perf_counter()
    with engine_of(shape, place, _NUM_ADAPTERS) as engine:
        yield Figure("seconds to write, read and prepare the model", time.perf_counter() - began, "s")
        ask(engine, shape, _asked(2, place), seed=99)
        ask(engine, shape, _asked(_NUM_ADAPTERS, place, _NUM_ADAPTERS), seed=98)
        for num in _numbers(place):
            answered = ask(engine, shape, _asked(num, place), seed=num)
            place.kept[f"serving {shape} {num}"] = answered
            yield from _rates(f"{num} requests", answered)
        num = _numbers(place)[-1]
        answered = ask(engine, shape, _asked(num, place, _NUM_ADAPTERS), seed=97)
        yield from _rates(f"{num} requests, {_NUM_ADAPTERS} adapters", answered)


def beside_transformers(shape: str, place: Place) -> Iterator[Figure | Exception]:
    """Answer the same prompts by transformers' continuous batching, without adapters."""
    from serving_peers import batching
    from serving_runs import forget_model

    forget_model(shape, place)
    with batching(shape, place) as answer:
        for num in _numbers(place):
            theirs = answer(_asked(num, place), seed=num)
            yield Figure(f"{num} requests: speed", theirs.tokens_per_s, "tokens/s")
            ours: Answered | None = place.kept.get(f"serving {shape} {num}")
            if ours is None:
                yield NotThere(f"{num} requests: the engine's speed isn't there to compare with")
                continue
            ratio = ours.tokens_per_s / theirs.tokens_per_s
            yield Figure(f"{num} requests: the engine over transformers", ratio, at_least=1.0, is_goal=True)


def decoding(shape: str, place: Place) -> Iterator[Figure]:
    """Time single decoding steps, and count what they ask of the device."""
    from serving_runs import Steps
    from timing import SyncCount, profile_of, seconds_of

    contexts = ((1, 256), (8, 256), (32, 256), (128, 256), (32, 2048))
    if place.is_rehearsal:
        contexts = ((1, 40), (4, 40), (8, 40))
    steps = Steps(shape, place, cache_tokens=max(rows * (tokens + 33) for rows, tokens in contexts))
    for num_rows, num_tokens in contexts:
        rows = steps.prefill(num_rows, num_tokens)
        name = f"{num_rows} requests behind {num_tokens} tokens"
        is_judged = shape == "8B" and (num_rows, num_tokens) == (32, 256)
        seconds = seconds_of(lambda rows=rows: steps.step(rows), place.device, _repeats(place))
        limit = _GOAL_STEP_MS if is_judged else None
        yield Figure(f"{name}: step", seconds * 1e3, "ms", at_most=limit, is_goal=True)
        with steps.as_they_are():
            plain = seconds_of(lambda rows=rows: steps.step(rows), place.device, _repeats(place))
        yield Figure(f"{name}: step without graphs", plain * 1e3, "ms")
        profile = profile_of(lambda rows=rows: steps.step(rows), place.device)
        yield Figure(f"{name}: launches", profile.num_launches)
        if profile.kernel_s is not None:
            yield Figure(f"{name}: share of the step in which the GPU computes", profile.kernel_s / seconds)
        place.facts[f"kernels of a decoding step, {shape}, {name}"] = profile.top
    syncs = SyncCount(place.device)
    rows = steps.rows(8, contexts[0][1])
    syncs.start()
    steps.step(rows)
    yield Figure("waits of the host in a step, sampling left out", syncs.stop())
    num_rows, num_tokens = contexts[2]
    for num_adapters in (1, 8, 32):
        rows = steps.rows(num_rows, num_tokens, num_adapters)
        seconds = seconds_of(lambda rows=rows: steps.step(rows), place.device, _repeats(place))
        yield Figure(f"{num_rows} requests, {num_adapters} adapters: step", seconds * 1e3, "ms")
        with steps.as_they_are():
            plain = seconds_of(lambda rows=rows: steps.step(rows), place.device, _repeats(place))
        yield Figure(f"{num_rows} requests, {num_adapters} adapters: step without graphs", plain * 1e3, "ms")
    yield from graph_figures("all steps", steps.runner, at_least=len(contexts))
    yield from _placing(shape, steps, place)


def _placing(shape: str, steps: Any, place: Place) -> Iterator[Figure]:
    """Time a step with an adapter that isn't on the device yet, and again with it there."""
    from timing import seconds_of

    rows = steps.rows(1, 16, 1)
    known = seconds_of(lambda: steps.step(rows), place.device, _repeats(place))
    found = []
    for _ in range(_repeats(place)):
        steps.runner.lora.forget(rows[0].adapter)
        found.append(seconds_of(lambda: steps.step(rows), place.device, repeats=1, num_warm_up=0))
    limit = _GOAL_PLACING_MS if shape == "8B" else None
    placing_ms = (statistics.median(found) - known) * 1e3
    yield Figure("placing an adapter on the device", placing_ms, "ms", at_most=limit, is_goal=True)


def prefill(shape: str, place: Place) -> Iterator[Figure]:
    """Time prompts of several lengths, each in one step."""
    from serving_runs import StepRow, Steps
    from timing import seconds_of

    lengths = (40, 80) if place.is_rehearsal else (256, 2048, 8192)
    steps = Steps(shape, place, cache_tokens=2 * max(lengths))
    for num_tokens in lengths:
        (row,) = steps.rows(1, num_tokens)
        prompt = [StepRow(row.tokens[:-1], 0, row.blocks, None, wants_logits=True)]
        seconds = seconds_of(lambda prompt=prompt: steps.step(prompt), place.device, _repeats(place))
        yield Figure(f"prompt of {num_tokens} tokens", num_tokens / seconds, "tokens/s")


def sampling(place: Place) -> Iterator[Figure]:
    """Time the choice of the next tokens of 32 requests over a vocabulary of 128,256."""
    import torch
    from timing import SyncCount, seconds_of

    from sienn_ray.inference.engine import SamplingParams
    from sienn_ray.inference.sampling.sampler import RowSampler, sample

    num_rows, vocab_size = (4, 320) if place.is_rehearsal else (32, 128_256)
    logits = torch.randn(num_rows, vocab_size, device=place.device) * 3
    for name, params, limit in (
        ("as it comes", SamplingParams(), _GOAL_SAMPLING_MS),
        ("greedy", SamplingParams(do_sample=False, repetition_penalty=1.0), None),
        ("with log-probabilities", SamplingParams(num_logprobs=5), None),
    ):
        rows = [RowSampler(range(3, 259), params, vocab_size) for _ in range(num_rows)]
        # Sampling overwrites the logits, and a copy is a small part of it.
        seconds = seconds_of(lambda rows=rows: sample(logits.clone(), rows), place.device, _repeats(place))
        yield Figure(f"{name}: {num_rows} rows", seconds * 1e3, "ms", at_most=limit, is_goal=True)
        syncs = SyncCount(place.device)
        syncs.start()
        sample(logits.clone(), rows)
        yield Figure(f"{name}: waits of the host", syncs.stop())


def memory_after_close(place: Place) -> Iterator[Figure]:
    """Close an engine, and see what it has left on the device."""
    place.needs_card("memory that is given back can't be told from other memory of a process")
    import gc

    import torch
    from serving_runs import ask, engine_of

    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with engine_of("135M", place) as engine:
        ask(engine, "135M", _asked(8, place))
        during = torch.cuda.memory_allocated()
    del engine
    gc.collect()
    torch.cuda.empty_cache()
    yield Figure("memory of an engine", (during - before) / 2**20, "MiB")
    yield Figure("memory that it has left", (torch.cuda.memory_allocated() - before) / 2**20, "MiB", at_most=64)


def _numbers(place: Place) -> tuple[int, ...]:
    return (1, 4) if place.is_rehearsal else _NUM_REQUESTS


def _asked(num_requests: int, place: Place, num_adapters: int = 0) -> Any:
    from serving_runs import Asked

    prompt, answer = (24, 4) if place.is_rehearsal else (_PROMPT_TOKENS, _ANSWER_TOKENS)
    return Asked(num_requests, prompt, answer, num_adapters)


def _rates(name: str, answered: Answered) -> Iterator[Figure]:
    yield Figure(f"{name}: speed", answered.tokens_per_s, "tokens/s")
    yield Figure(f"{name}: time to first token", answered.first_token_s * 1e3, "ms")


def _repeats(place: Place) -> int:
    return 2 if place.is_rehearsal else _REPEATS


def _of(run: Callable[[str, Place], Iterator[Any]], shape: str) -> Callable[[Place], Iterator[Any]]:
    return lambda place: run(shape, place)


CHECKS = (
    Check("engine/memory after close", memory_after_close, 40.0),
    Check("engine speed/8B decoding steps", _of(decoding, "8B"), 60.0),
    Check("engine speed/8B prefill", _of(prefill, "8B"), 30.0),
    Check("engine speed/sampling", sampling, 20.0),
    Check("engine speed/8B requests", _of(requests, "8B"), 90.0),
    Check("engine peers/8B requests", _of(beside_transformers, "8B"), 75.0),
    Check("engine speed/1B requests", _of(requests, "1B"), 45.0),
    Check("engine peers/1B requests", _of(beside_transformers, "1B"), 45.0),
)
