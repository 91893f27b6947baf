"""Engines that end soon after their last answer: they start when they are asked for, whoever waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.integration.engines import engine_state, replicas
from tests.integration.service import PROMPT, Service, wait_for


@dataclass(frozen=True)
class FirstAnswers:
    """What came of the first questions that an engine was asked.

    Args:
        impatient: What the one got who asked first and left before the engine was there.
        others: Answers to those who asked for the same after that one.
    """

    impatient: BaseException | None
    others: set[str]


@pytest.fixture(scope="package")
def first_answers(careful: Service, adapter: str) -> FirstAnswers:
    wait_for(lambda: not replicas(careful), "the end of an idle engine", 60.0)
    body = {"job_id": adapter, "prompt": PROMPT}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(httpx2.post, f"{careful.url}/api/test-model", json=body, timeout=4.0)
        wait_for(lambda: replicas(careful), "the start that the first one causes", 60.0)
        others = [pool.submit(careful.ask, adapter, PROMPT) for _ in range(3)]
        return FirstAnswers(first.exception(), {each.result()["generated_text"] for each in others})


@pytest.fixture(scope="package")
def adapter(undisturbed: Any) -> str:
    """Id of an adapter of the careful service."""
    return str(undisturbed["job_id"])


def test_an_engine_goes_on_starting_when_the_first_who_asked_has_left(first_answers: FirstAnswers) -> None:
    assert isinstance(first_answers.impatient, httpx2.ReadTimeout)
    assert len(first_answers.others) == 1


@pytest.mark.last
def test_an_idle_engine_costs_nothing_and_comes_back_though_nobody_waits(
    careful: Service, adapter: str, first_answers: FirstAnswers
) -> None:
    wait_for(lambda: not replicas(careful), "the end of an idle engine", 60.0)
    assert engine_state(careful) == ("idle", 0)
    body = {"job_id": adapter, "prompt": PROMPT, "max_new_tokens": 10, "do_sample": False}

    def ask() -> httpx2.Response:
        return httpx2.post(f"{careful.url}/api/test-model", json=body, headers={"Prefer": "wait=0"}, timeout=30.0)

    refused = ask()
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert "is still loading" in refused.json()["detail"]
    assert careful.get("/health")["status"] == "ok"
    # Nobody waits for it, and still it loads.
    answer = wait_for(lambda: (asked := ask()).is_success and asked.json(), "the engine", 60.0)
    assert {answer["generated_text"]} == first_answers.others
