"""How many engines run, in how much memory, and of which version, with Serve faked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from deployments import engine_applications
from deployments.engine import chosen_kind
from deployments.engine_applications import EngineApplications
from deployments.engine_versions import EngineVersion, version_of
from sienn_ray.catalog import BaseModelSource, FoundBaseModel
from sienn_ray.errors import CapacityError
from sienn_ray.inference.applications import EngineKey, deployment_name, key_of
from sienn_ray.settings import GIB, EngineKind, Settings

NOW = 10
COMMIT = "a" * 40
A, B, C = (EngineKey(f"some/{name}") for name in "abc")


class FakeServe:
    """Serve with engines, each of which says for how long it was idle.

    Attributes:
        idle_s: Seconds, by application; None doesn't answer.
        log: What was deployed and deleted.
    """

    def __init__(self) -> None:
        self.applications: dict[str, Any] = {}
        self.idle_s: dict[str, float | None] = {}
        self.log: list[str] = []

    def add(
        self,
        key: EngineKey,
        *,
        idle_s: float | None = 0.0,
        state: str = "RUNNING",
        num_replicas: int = 1,
        version: EngineVersion | None = EngineVersion("01", NOW),  # noqa: B008
        deployment: str = "Engine",
    ) -> None:
        """Add an engine, of the present version if nothing else is said."""
        deployments = {deployment: SimpleNamespace(replica_states={"RUNNING": num_replicas, "STOPPING": 1})}
        if version is not None:
            deployments[version.name] = SimpleNamespace(replica_states={})
        self.applications[key.application] = SimpleNamespace(
            status=SimpleNamespace(value=state), message="", deployments=deployments
        )
        self.idle_s[key.application] = idle_s

    def status(self) -> FakeServe:
        return self

    def RunTarget(self, target: Any, *, name: str, route_prefix: None) -> Any:  # noqa: N802
        return target, name

    def run_many(self, targets: list[Any], *, wait_for_applications_running: bool) -> None:
        for (deployment, version, memory_bytes), name in targets:
            self.log.append(f"deploy {name} with {memory_bytes}")
            self.add(key_of(name, version.revision), version=version, deployment=deployment)

    def delete(self, name: str) -> None:
        self.log.append(f"delete {name}")
        del self.applications[name]

    def get_app_handle(self, name: str) -> Any:
        def result(timeout_s: float) -> float:
            found = self.idle_s[name]
            if found is None:
                raise TimeoutError
            return found

        return SimpleNamespace(idle_s=SimpleNamespace(remote=lambda: SimpleNamespace(result=result)))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    def build(base_model: str, settings: Settings, revision: str | None, *, version: Any, memory_bytes: int) -> Any:
        return deployment_name(revision, chosen_kind(settings)), version, memory_bytes

    serve = FakeServe()
    monkeypatch.setattr(engine_applications, "serve", serve)
    monkeypatch.setattr(engine_applications, "build_engine", build)
    monkeypatch.setattr(engine_applications, "digest_of", lambda settings: "01")
    return serve


def use_nodes(monkeypatch: pytest.MonkeyPatch, *, node_bytes: int, num_free_bytes: int) -> None:
    """A cluster of one node."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"memory": float(node_bytes)}}])
    monkeypatch.setattr(ray, "available_resources", lambda: {"memory": float(num_free_bytes)})


def engines(need_bytes: int = 0, kind: EngineKind = EngineKind.BUILTIN, **settings: Any) -> EngineApplications:
    """The engines of a service that was deployed now."""
    return EngineApplications(
        Settings(env="test", **{"engine_num_gpus": 0.0, **settings}),
        NOW,
        find=lambda *_: FoundBaseModel(BaseModelSource.PACKAGE, None),
        memory_bytes=lambda *_: need_bytes,
        choose=lambda *_: kind,
    )


class TestNumber:
    def test_there_is_room_for_some(self, serve: FakeServe) -> None:
        serve.add(A)
        assert engines(max_engines=2).deployed(B) == B.application
        assert serve.log == [f"deploy {B.application} with 0"]

    def test_for_another_one_the_longest_idle_one_ends(self, serve: FakeServe) -> None:
        serve.add(A, idle_s=20.0)
        serve.add(B, idle_s=30.0)
        engines(max_engines=2).deployed(C)
        assert serve.log == [f"delete {B.application}", f"deploy {C.application} with 0"]

    @pytest.mark.parametrize("idle_s", [0.0, 1.0, None])
    def test_while_all_are_busy_it_is_refused(self, serve: FakeServe, idle_s: float | None) -> None:
        serve.add(A, idle_s=idle_s)
        serve.add(B, idle_s=60.0, num_replicas=2)  # grew lately
        with pytest.raises(CapacityError) as caught:
            engines(max_engines=2).deployed(C)
        assert caught.value.message == (
            "2 engines run (SIENN_MAX_ENGINES is 2) and all are busy: some/a, some/b; ask one of these, or again in a "
            "moment"
        )
        assert serve.log == []

    def test_listed_ones_count_and_stay(self, serve: FakeServe) -> None:
        serve.add(A, idle_s=60.0, version=EngineVersion("02", NOW, is_listed=True))
        with pytest.raises(CapacityError, match="all are busy"):
            engines(max_engines=1).deployed(B)

    def test_one_without_replicas_takes_no_room(self, serve: FakeServe) -> None:
        serve.add(A, num_replicas=0)
        assert engines(max_engines=1).deployed(B) == B.application

    def test_one_that_was_idle_needs_room_again(self, serve: FakeServe) -> None:
        serve.add(A, num_replicas=0)
        serve.add(B, idle_s=30.0)
        assert engines(max_engines=1).deployed(A) == A.application
        assert serve.log == [f"delete {B.application}"]

    def test_two_replicas_of_the_service_together_start_no_more(
        self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_many = serve.run_many

        def run_after_another(targets: list[Any], **options: Any) -> None:
            serve.add(B)
            run_many(targets, **options)

        monkeypatch.setattr(serve, "run_many", run_after_another)
        with pytest.raises(CapacityError, match="all are busy"):
            engines(max_engines=1).deployed(A)
        assert list(serve.applications) == [B.application]

    def test_one_that_runs_needs_none(self, serve: FakeServe) -> None:
        for key in (A, B, C):
            serve.add(key)
        assert engines(max_engines=1).deployed(A) == A.application
        assert serve.log == []


class TestMemory:
    def test_what_fits_on_no_node_is_refused(self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch) -> None:
        use_nodes(monkeypatch, node_bytes=16 * 10**9, num_free_bytes=0)
        with pytest.raises(
            CapacityError, match=r"engine of some/a needs 32\.0 GB of memory, and the largest node gives 16\.0 GB"
        ):
            engines(32 * 10**9).deployed(A)
        assert serve.log == []

    def test_a_node_that_the_autoscaler_adds_counts(self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch) -> None:
        use_nodes(monkeypatch, node_bytes=GIB, num_free_bytes=GIB)
        engines(4 * GIB, engine_node_memory_bytes=8 * GIB).deployed(A)
        assert serve.log == [f"deploy {A.application} with {4 * GIB}"]

    def test_an_idle_engine_ends_where_memory_lacks(self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch) -> None:
        use_nodes(monkeypatch, node_bytes=8 * GIB, num_free_bytes=2 * GIB)
        serve.add(A, idle_s=30.0)
        serve.add(B, idle_s=0.0)
        engines(4 * GIB).deployed(C)
        # With none left that is idle, the replica waits for memory.
        assert serve.log == [f"delete {A.application}", f"deploy {C.application} with {4 * GIB}"]

    def test_one_that_was_idle_needs_memory_again(self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch) -> None:
        use_nodes(monkeypatch, node_bytes=8 * GIB, num_free_bytes=2 * GIB)
        serve.add(A, num_replicas=0)
        serve.add(B, idle_s=30.0)
        engines(4 * GIB).deployed(A)
        assert serve.log == [f"delete {B.application}"]


class TestVersion:
    OLD = EngineVersion("02", NOW - 1)

    def test_an_older_one_is_deployed_anew_when_it_is_found(self, serve: FakeServe) -> None:
        serve.add(A, version=self.OLD)
        assert engines().deployed(A) == A.application
        assert serve.log == [f"deploy {A.application} with 0"]
        assert version_of(serve.applications[A.application]) == EngineVersion("01", NOW)
        engines().deployed(A)
        assert len(serve.log) == 1

    def test_one_of_a_later_service_is_left_alone(self, serve: FakeServe) -> None:
        serve.add(A, version=EngineVersion("02", NOW + 1))
        engines().deployed(A)
        assert serve.log == []

    def test_at_the_start_those_that_run_are_rolled_and_idle_ones_end(self, serve: FakeServe) -> None:
        pinned = EngineKey("some/a", COMMIT)
        serve.add(pinned, version=EngineVersion("02", NOW - 1, revision=COMMIT))
        serve.add(B, version=self.OLD, num_replicas=0)
        serve.add(C, version=EngineVersion("02", NOW - 1, is_listed=True))
        serve.add(EngineKey("some/old"), version=None)
        serve.applications["sienn"] = SimpleNamespace(deployments={})
        engines().roll_outdated()
        assert serve.log == [
            f"deploy {pinned.application} with 0",
            f"delete {B.application}",
            "deploy engine-some--old with 0",
        ]
        assert version_of(serve.applications[pinned.application]) == EngineVersion("01", NOW, revision=COMMIT)

    def test_one_that_cannot_be_rolled_holds_up_no_other(
        self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        serve.add(A, version=self.OLD, num_replicas=0)
        serve.add(B, version=self.OLD)
        monkeypatch.setattr(serve, "delete", lambda name: 1 / 0)
        engines().roll_outdated()
        assert "engine-some--a wasn't deployed anew: ZeroDivisionError" in caplog.text
        assert serve.log == [f"deploy {B.application} with 0"]


class TestKinds:
    OWN = EngineKey(A.base_model, kind=EngineKind.BUILTIN)

    def test_ours_runs_beside_vllm_for_what_that_cant_serve(self, serve: FakeServe) -> None:
        both = engines(kind=EngineKind.VLLM)
        assert [both.deployed(key) for key in (A, self.OWN)] == ["engine-some--a", "engine-some--a---builtin"]
        kinds = [set(serve.applications[name].deployments) & {"Engine", "VllmEngine"} for name in serve.applications]
        assert kinds == [{"VllmEngine"}, {"Engine"}]

    def test_where_ours_is_chosen_there_is_one(self, serve: FakeServe) -> None:
        alone = engines(kind=EngineKind.BUILTIN)
        assert {alone.deployed(key) for key in (self.OWN, A)} == {"engine-some--a"}
        assert len(serve.applications) == 1

    def test_one_of_ours_that_runs_already_answers_for_its_kind(self, serve: FakeServe) -> None:
        serve.add(A)
        assert engines(kind=EngineKind.VLLM).deployed(self.OWN) == A.application
        assert serve.log == []

    def test_an_outdated_one_stays_of_its_kind(self, serve: FakeServe) -> None:
        serve.add(self.OWN, version=EngineVersion("00", NOW - 1))
        engines(kind=EngineKind.VLLM).roll_outdated()
        assert serve.log == ["deploy engine-some--a---builtin with 0"]
        assert "Engine" in serve.applications[self.OWN.application].deployments

    @pytest.mark.parametrize(("engine", "expected"), [("auto", "Engine"), ("vllm", "VllmEngine")])
    def test_where_vllm_couldnt_be_started_ours_takes_its_place(
        self, serve: FakeServe, engine: str, expected: str
    ) -> None:
        serve.add(A, state="DEPLOY_FAILED", deployment="VllmEngine")
        assert engines(kind=EngineKind.VLLM, engine=engine).deployed(A) == A.application
        assert expected in serve.applications[A.application].deployments
