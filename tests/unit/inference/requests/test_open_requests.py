from __future__ import annotations

import pytest

from sienn_ray.errors import CapacityError, EngineError, QueueFullError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.open_requests import OpenRequests


def answer(deltas: list[GenerationDelta] | None = None) -> Answer:
    return Answer(GenerationRequest("Hello"), (deltas if deltas is not None else []).append)


def test_as_many_wait_as_may_beside_those_that_run() -> None:
    requests = OpenRequests("org/base", max_queue=2)
    first = answer()
    for each in (first, answer()):
        requests.add(each, num_running=0)
    with pytest.raises(QueueFullError, match=r"2 requests wait for org/base already \(SIENN_ENGINE_MAX_QUEUE\)"):
        requests.add(answer(), num_running=0)
    requests.add(answer(), num_running=1)
    first.fail(EngineError("over"))
    requests.add(answer(), num_running=1)


def test_a_closed_engine_accepts_none_and_fails_all() -> None:
    requests = OpenRequests("org/base", max_queue=2)
    deltas: list[GenerationDelta] = []
    for _ in range(2):
        requests.add(answer(deltas), num_running=0)
    requests.close()
    assert requests.is_closed
    with pytest.raises(CapacityError, match="the engine of org/base is stopping"):
        requests.add(answer(deltas), num_running=0)
    requests.fail_all()
    requests.fail_all()
    assert [type(delta.error) for delta in deltas] == [CapacityError, CapacityError]
