"""Adapters are loaded ahead where an engine runs, and nothing that goes wrong there is a run's concern."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from sienn_ray.inference.applications import EngineKey, prefetch


class FakeServe:
    """Serve with one engine.

    Attributes:
        states: Its replicas by state.
        error: What loading raises.
    """

    def __init__(self) -> None:
        self.states: dict[str, int] = {"RUNNING": 1}
        self.error: Exception | None = None
        self.loaded: list[tuple[Any, ...]] = []

    def status(self) -> Any:
        deployments = {"Engine": SimpleNamespace(replica_states=self.states)}
        return SimpleNamespace(applications={"engine-some--base": SimpleNamespace(deployments=deployments)})

    def get_app_handle(self, name: str) -> Any:
        def options(*, multiplexed_model_id: str) -> Any:
            def remote(*arguments: str) -> Any:
                self.loaded.append((name, multiplexed_model_id, *arguments))
                return SimpleNamespace(result=self._result)

            return SimpleNamespace(prefetch=SimpleNamespace(remote=remote))

        return SimpleNamespace(options=options)

    def _result(self, timeout_s: float) -> None:
        assert timeout_s > 0
        if self.error is not None:
            raise self.error


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    fake = FakeServe()
    monkeypatch.setattr(serve, "status", fake.status)
    monkeypatch.setattr(serve, "get_app_handle", fake.get_app_handle)
    return fake


def test_a_replica_that_others_will_choose_loads_it(fake: FakeServe) -> None:
    words = prefetch(EngineKey("some/base"), "job-1", "adapters/job-1")
    assert words == "the engine of some/base has loaded adapter job-1"
    assert fake.loaded == [("engine-some--base", "job-1", "job-1", "adapters/job-1")]


@pytest.mark.parametrize("states", [{}, {"STARTING": 1}, {"RUNNING": 0, "STOPPING": 1}])
def test_no_engine_is_started_for_it(fake: FakeServe, states: dict[str, int]) -> None:
    fake.states = states
    for base_model in ("some/base", "other/base"):
        words = prefetch(EngineKey(base_model), "job-1", "adapters/job-1")
        assert words == f"no engine of {base_model} is running, so the first request of adapter job-1 starts one"
    assert fake.loaded == []


def test_what_goes_wrong_is_only_told(fake: FakeServe) -> None:
    fake.error = TimeoutError("too slow")
    words = prefetch(EngineKey("some/base"), "job-1", "adapters/job-1")
    assert words == "adapter job-1 wasn't loaded ahead: TimeoutError: too slow"
