"""How many engines run, in how much memory, and of which version, with Serve faked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from deployments import engine_applications, engine_room
from deployments.engine import chosen_kind
from deployments.engine_applications import EngineApplications
from deployments.engine_failures import VllmPause
from deployments.engine_versions import EngineVersion, version_of
from sienn_ray.catalog import BaseModelSource, FoundBaseModel
from sienn_ray.errors import CapacityError
from sienn_ray.inference.applications import EngineKey, deployment_name, key_of
from sienn_ray.settings import GIB, EngineKind, Settings

NOW = 10
COMMIT = "a" * 40
A, B, C = (EngineKey(f"some/{name}") for name in "abc")


def trigger_of(name: str) -> Any:
    """What has last changed a deployment's status."""
    return SimpleNamespace(value=name)


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
        trigger: str = "",
        message: str = "",
        name: str | None = None,
    ) -> None:
        """Add an engine, of the present version if nothing else is said."""
        states = {"RUNNING": num_replicas, "STOPPING": 1}
        deployments = {
            deployment: SimpleNamespace(replica_states=states, status_trigger=trigger_of(trigger), message=message)
        }
        if version is not None:
            deployments[version.name] = SimpleNamespace(replica_states={}, status_trigger=trigger_of(""), message="")
        self.applications[name or key.application] = SimpleNamespace(
            status=SimpleNamespace(value=state), message="", deployments=deployments
        )
        self.idle_s[name or key.application] = idle_s

    def kind_of(self, key: EngineKey) -> str:
        """Return the deployment of an engine, which tells its kind."""
        return str(next(iter(self.applications[key.application].deployments)))

    def status(self) -> FakeServe:
        return self

    def RunTarget(self, target: Any, *, name: str, route_prefix: None) -> Any:  # noqa: N802
        return target, name

    def run_many(self, targets: list[Any], *, wait_for_applications_running: bool) -> None:
        for (deployment, version, memory_bytes), name in targets:
            self.log.append(f"deploy {name} with {memory_bytes}")
            self.add(key_of(name, version.revision), version=version, deployment=deployment, name=name)

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
    monkeypatch.setattr(engine_room, "serve", serve)
    monkeypatch.setattr(engine_applications, "build_engine", build)
    monkeypatch.setattr(engine_applications, "digest_of", lambda settings: "01")
    return serve


def use_nodes(monkeypatch: pytest.MonkeyPatch, *, node_bytes: int, num_free_bytes: int) -> None:
    """A cluster of one node."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"memory": float(node_bytes)}}])
    monkeypatch.setattr(ray, "available_resources", lambda: {"memory": float(num_free_bytes)})


def engines(
    need_bytes: int = 0, kind: EngineKind = EngineKind.BUILTIN, now_s: float = 0.0, **settings: Any
) -> EngineApplications:
    """The engines of a service that was deployed now."""
    return EngineApplications(
        Settings(env="test", **{"engine_num_gpus": 0.0, **settings}),
        NOW,
        find=lambda *_: FoundBaseModel(BaseModelSource.PACKAGE, None),
        memory_bytes=lambda *_: need_bytes,
        choose=lambda *_: kind,
        now_s=lambda: now_s,
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

    def test_a_running_engine_is_found_without_looking_at_nodes(self, serve: FakeServe) -> None:
        serve.add(A, deployment="VllmEngine")
        nowhere = EngineApplications(Settings(env="test"), NOW, choose=lambda *_: pytest.fail("looked"))
        assert nowhere.deployed(A) == A.application

    def test_nodes_are_looked_at_without_the_lock(self, serve: FakeServe) -> None:
        both: EngineApplications

        def choose(base_model: str, settings: Settings) -> EngineKind:
            if base_model == A.base_model:  # while this waits, another one starts
                with ThreadPoolExecutor(1) as threads:
                    assert threads.submit(both.deployed, B).result(timeout=60.0) == B.application
            return EngineKind.BUILTIN

        both = EngineApplications(
            Settings(env="test", engine_num_gpus=0.0),
            NOW,
            find=lambda *_: FoundBaseModel(BaseModelSource.PACKAGE, None),
            memory_bytes=lambda *_: 0,
            choose=choose,
        )
        assert both.deployed(A) == A.application

    def test_ours_is_chosen_where_no_node_has_the_memory_for_vllm(
        self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_nodes(monkeypatch, node_bytes=4 * GIB, num_free_bytes=4 * GIB)
        small = EngineApplications(
            Settings(env="test", engine_num_gpus=0.0),
            NOW,
            find=lambda *_: FoundBaseModel(BaseModelSource.PACKAGE, None),
            memory_bytes=lambda key, settings: (6 if settings.engine is EngineKind.VLLM else 3) * GIB,
            choose=lambda *_: EngineKind.VLLM,
        )
        small.deployed(A)
        assert serve.log == [f"deploy {A.application} with {3 * GIB}"]
        assert serve.kind_of(A) == "Engine"

    @pytest.mark.parametrize(("engine", "expected"), [("auto", "Engine"), ("vllm", "VllmEngine")])
    def test_where_vllm_couldnt_be_started_ours_takes_its_place(
        self, serve: FakeServe, engine: str, expected: str
    ) -> None:
        serve.add(A, state="DEPLOY_FAILED", deployment="VllmEngine")
        assert engines(kind=EngineKind.VLLM, engine=engine).deployed(A) == A.application
        assert expected in serve.applications[A.application].deployments


class TestFailures:
    """vLLM, chosen by `auto`, that doesn't start."""

    @staticmethod
    def failed(serve: FakeServe, message: str = "", pause: VllmPause | None = None, **changes: Any) -> None:
        version = EngineVersion("01", NOW, pause=pause)
        serve.add(
            A, **{"state": "DEPLOY_FAILED", "deployment": "VllmEngine", **changes}, message=message, version=version
        )

    @staticmethod
    def ask(now_s: float = 0.0, key: EngineKey = A) -> None:
        assert engines(kind=EngineKind.VLLM, now_s=now_s).deployed(key) == A.application

    @staticmethod
    def pause_of(serve: FakeServe) -> VllmPause | None:
        version = version_of(serve.applications[A.application])
        return None if version is None else version.pause

    def test_the_reason_is_logged(self, serve: FakeServe, caplog: pytest.LogCaptureFixture) -> None:
        self.failed(serve, "vLLM can't load some/a: no such architecture")
        self.ask()
        assert "takes its place for 600 s at least: vLLM can't load some/a: no such architecture" in caplog.text

    def test_one_that_ran_before_and_cant_come_back_has_failed(self, serve: FakeServe) -> None:
        self.failed(serve, state="UNHEALTHY", trigger="REPLICA_STARTUP_FAILED", num_replicas=0)
        self.ask()
        assert serve.kind_of(A) == "Engine"

    def test_one_that_was_killed_is_tried_once_more(self, serve: FakeServe) -> None:
        killed = "3 times in a row. Error:\nActorDiedError()"
        self.failed(serve, killed)
        self.ask()
        assert (serve.kind_of(A), self.pause_of(serve)) == ("VllmEngine", VllmPause(600, 0))
        self.failed(serve, killed, self.pause_of(serve))
        self.ask()
        assert (serve.kind_of(A), self.pause_of(serve)) == ("Engine", VllmPause(1200, 0))

    @pytest.mark.parametrize(
        ("now_s", "num_replicas", "expected"),
        [(599.0, 0, "Engine"), (601.0, 0, "VllmEngine"), (601.0, 1, "Engine")],
    )
    def test_it_is_tried_again_after_a_pause_when_nothing_answers(
        self, serve: FakeServe, now_s: float, num_replicas: int, expected: str
    ) -> None:
        pause = VllmPause(600, 0)
        serve.add(A, num_replicas=num_replicas, version=EngineVersion("01", NOW, pause=pause))
        self.ask(now_s)
        assert (serve.kind_of(A), self.pause_of(serve)) == (expected, pause)

    def test_two_that_both_fail_take_ever_fewer_turns(self, serve: FakeServe) -> None:
        self.failed(serve)
        kinds = []
        for minute in range(70):
            self.ask(60.0 * minute)
            kinds.append(serve.kind_of(A))
            serve.applications[A.application].status.value = "DEPLOY_FAILED"
        assert [minute for minute, kind in enumerate(kinds) if kind == "VllmEngine"] == [10, 31]


class TestGpus:
    """`auto` with vLLM on a cluster's GPUs, one for each replica."""

    OWN = EngineKey(A.base_model, kind=EngineKind.BUILTIN)

    @pytest.fixture(autouse=True)
    def free(self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
        """GPUs of all and those that nothing has reserved."""
        gpus = {"all": 1.0, "used": 0.0}

        def num_free() -> float:
            engines = [each for each in serve.applications.values() if each.status.value != "DEPLOY_FAILED"]
            used = sum(
                deployment.replica_states.get("RUNNING", 0)
                for each in engines
                for deployment in each.deployments.values()
            )
            return float(gpus["all"] - gpus["used"] - used)

        monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": gpus["all"]})
        monkeypatch.setattr(ray, "available_resources", lambda: {"GPU": max(0.0, num_free())})
        return gpus

    @staticmethod
    def ask(key: EngineKey, **settings: Any) -> str:
        return engines(kind=EngineKind.VLLM, engine_num_gpus=1.0, **settings).deployed(key)

    @pytest.mark.parametrize("num_replicas", [0, 1])
    def test_on_the_only_one_ours_takes_vllms_place_and_stays(self, serve: FakeServe, num_replicas: int) -> None:
        serve.add(A, deployment="VllmEngine", num_replicas=num_replicas)
        for key in (self.OWN, A, self.OWN, A):
            assert self.ask(key) == A.application
        assert serve.log == [f"deploy {A.application} with 0"]
        assert serve.kind_of(A) == "Engine"
        serve.applications[A.application].deployments["Engine"].replica_states.clear()
        self.ask(A)  # after it was idle
        assert len(serve.log) == 1

    def test_on_the_only_one_ours_is_first_where_its_adapter_is(self, serve: FakeServe) -> None:
        assert self.ask(self.OWN) == A.application
        assert serve.kind_of(A) == "Engine"

    def test_with_a_second_one_ours_runs_beside(self, serve: FakeServe, free: dict[str, float]) -> None:
        free["all"] = 2.0
        serve.add(A, deployment="VllmEngine")
        assert self.ask(self.OWN) == self.OWN.application
        assert serve.kind_of(A) == "VllmEngine"

    def test_with_a_second_one_in_use_ours_takes_vllms_place(self, serve: FakeServe, free: dict[str, float]) -> None:
        free |= {"all": 2.0, "used": 1.0}  # training
        serve.add(A, deployment="VllmEngine", idle_s=60.0)
        assert self.ask(self.OWN) == A.application
        assert serve.log == [f"deploy {A.application} with 0"]

    def test_where_ours_runs_and_no_gpu_is_left_it_answers_for_vllm(
        self, serve: FakeServe, free: dict[str, float]
    ) -> None:
        free |= {"all": 2.0, "used": 1.0}
        serve.add(A, deployment="VllmEngine", num_replicas=0)
        serve.add(self.OWN, idle_s=60.0)
        assert self.ask(A) == self.OWN.application
        assert serve.log == []

    def test_an_idle_engine_ends_where_gpus_lack(self, serve: FakeServe) -> None:
        serve.add(B, idle_s=60.0)
        self.ask(A)
        assert serve.log == [f"delete {B.application}", f"deploy {A.application} with 0"]

    def test_as_many_end_as_are_needed_though_ray_tells_late(
        self, serve: FakeServe, monkeypatch: pytest.MonkeyPatch, free: dict[str, float]
    ) -> None:
        free["all"] = 2.0
        monkeypatch.setattr(ray, "available_resources", dict)
        serve.add(B, idle_s=60.0)
        serve.add(C, idle_s=30.0)
        self.ask(A)
        assert serve.log == [f"delete {B.application}", f"deploy {A.application} with 0"]

    def test_none_ends_for_what_never_fits(self, serve: FakeServe, free: dict[str, float]) -> None:
        free["all"] = 0.5
        serve.add(B, idle_s=60.0)
        self.ask(A)
        assert serve.log == [f"deploy {A.application} with 0"]

    def test_where_an_autoscaler_adds_nodes_ours_runs_beside(self, serve: FakeServe) -> None:
        serve.add(A, deployment="VllmEngine")
        assert self.ask(self.OWN, engine_node_memory_bytes=GIB) == self.OWN.application

    def test_a_listed_one_isnt_replaced(self, serve: FakeServe) -> None:
        serve.add(A, deployment="VllmEngine", version=EngineVersion("02", NOW, is_listed=True))
        with pytest.raises(CapacityError, match=r"vLLM's, which can't serve this adapter, .* `engine: builtin` in"):
            self.ask(self.OWN)
        assert serve.log == []

    def test_one_of_an_older_version_in_vllms_place_stays_ours_for_its_adapters(self, serve: FakeServe) -> None:
        serve.add(A, version=EngineVersion("00", NOW - 1))
        self.ask(self.OWN)
        assert serve.kind_of(A) == "Engine"
