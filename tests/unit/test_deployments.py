from __future__ import annotations

import asyncio
import inspect
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import yaml
from pydantic import ValidationError
from ray.serve.schema import ApplicationStatus

from deployments.app import EngineSettings, application_of, build, build_listed_engine
from deployments.engine import EngineDeployment, assigned_gpus, build_engine
from deployments.health import engine_states, nodes_of
from deployments.local_cluster import temp_dir
from sienn_ray.api.cluster import EngineState, Nodes
from sienn_ray.inference.applications import EngineKey, base_model_of
from sienn_ray.settings import Settings
from tests.unit.conftest import AddToCache

SERVE_CONFIG = Path(__file__).parents[2] / "serveconfig.yaml"


@pytest.mark.parametrize("count", [1, 3])
def test_the_ingress_has_the_replicas_that_are_set(count: int) -> None:
    settings = Settings(ingress_replicas=count)
    assert options_of(application_of(settings))._deployment_config.num_replicas == count


def test_serve_sees_the_type_of_the_application_arguments() -> None:
    assert inspect.signature(build).parameters["args"].annotation is Settings


def test_arguments_of_the_config_file_join_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIENN_MAX_RUNNING_JOBS", "7")
    (application,) = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    settings = Settings.model_validate(application["args"])
    assert (settings.env, settings.max_running_jobs) == ("production", 7)
    assert application["import_path"] == "deployments.app:build"


def test_the_config_file_overrides_no_options_that_settings_choose() -> None:
    (application,) = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    assert "deployments" not in application


@pytest.mark.parametrize("base_model", ["gpt2", "Qwen/Qwen2.5-0.5B-Instruct"])
def test_application_names_have_no_slash(base_model: str) -> None:
    name = EngineKey(base_model).application
    assert "/" not in name
    assert name.endswith(base_model.rsplit("/", 1)[-1])
    assert base_model_of(name) == base_model


@pytest.mark.parametrize("base_model", ["gpt2", "Qwen/Qwen2.5-0.5B-Instruct"])
def test_two_commits_of_a_base_model_have_two_engines(base_model: str) -> None:
    names = {EngineKey(base_model, commit).application for commit in (None, "1" * 40, "2" * 40)}
    assert len(names) == 3
    assert {base_model_of(name) for name in names} == {base_model}


def application(status: ApplicationStatus, replicas: dict[str, int], message: str = "") -> SimpleNamespace:
    """What of Serve's overview of an application is looked at."""
    deployments = {"Engine": SimpleNamespace(replica_states=replicas)}
    return SimpleNamespace(status=status, message=message, deployments=deployments)


def test_engines_are_found_among_the_applications() -> None:
    trace = "Deployment failed.\nTraceback (most recent call last):\n  secret"
    found = engine_states(
        {
            "sienn": application(ApplicationStatus.RUNNING, {"RUNNING": 1}),
            "engine-gpt2": application(ApplicationStatus.DEPLOYING, {"STARTING": 1}),
            "engine-a--b": application(ApplicationStatus.RUNNING, {"RUNNING": 2, "STOPPING": 1}, "fine"),
            "engine-broken": application(ApplicationStatus.DEPLOY_FAILED, {}, trace),
        }
    )
    assert found == [
        EngineState("a/b", "running", 2),
        EngineState("broken", "failed", 0, "Deployment failed."),
        EngineState("gpt2", "starting", 0),
    ]


def test_every_status_of_an_application_has_its_state() -> None:
    states = {status: engine_states({"engine-m": application(status, {})})[0].state for status in ApplicationStatus}
    failed = {ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY}
    assert {status for status, state in states.items() if state == "failed"} == failed


def test_only_nodes_that_are_alive_count() -> None:
    table = [
        {"Alive": True, "Resources": {"CPU": 4.0, "memory": 1e9, "node:10.0.0.1": 1.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert nodes_of(table) == Nodes(num_nodes=3, num_cpus=6.0, num_gpus=1.0)


def test_two_homes_have_two_short_temp_dirs(tmp_path: Path) -> None:
    first, second = temp_dir(tmp_path / "a"), temp_dir(tmp_path / "b")
    assert first != second
    # A socket's path may have 107 bytes; Ray's own part of it takes up to 75 of them.
    assert len(str(first)) < 32


def test_short_requests_have_places_that_long_ones_never_take() -> None:
    settings = Settings(max_open_answers=7)
    places = build(settings)._bound_deployment._deployment_config.max_ongoing_requests
    assert places - settings.max_long_requests == 200


def options_of(application: Any) -> Any:
    return application._bound_deployment


def test_a_dead_ingress_is_replaced_within_seconds() -> None:
    assert options_of(build(Settings()))._deployment_config.health_check_period_s == 1


class TestBuiltEngine:
    @pytest.fixture(autouse=True)
    def cluster(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
        resources: dict[str, float] = {"CPU": 8.0}
        monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
        return resources

    def test_it_comes_with_the_first_request_and_goes_when_idle(self) -> None:
        settings = Settings(engine_max_replicas=4, engine_max_batch=16, engine_idle_timeout_s=30.0)
        scaling = options_of(build_engine("gpt2", settings))._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (0, 1, 4)
        assert (scaling.target_ongoing_requests, scaling.downscale_delay_s) == (16, 30.0)

    def test_a_dead_replica_is_replaced_within_seconds(self) -> None:
        assert options_of(build_engine("gpt2", Settings()))._deployment_config.health_check_period_s == 1

    @pytest.mark.parametrize(
        ("base_model", "num_gpus", "chosen", "expected"),
        [
            ("Qwen/Qwen2.5-0.5B-Instruct", 0, None, 0.0),
            ("Qwen/Qwen2.5-0.5B-Instruct", 2, None, 0.25),
            ("Qwen/Qwen2.5-7B-Instruct", 2, None, 1.0),
            ("some/other", 2, None, 1.0),
            ("some/other", 2, 0.5, 0.5),
            ("some/other", 0, 2.0, 2.0),
        ],
    )
    def test_gpus_are_the_catalogs_where_there_are_any(
        self, cluster: dict[str, float], base_model: str, num_gpus: int, chosen: float | None, expected: float
    ) -> None:
        cluster |= {"GPU": float(num_gpus)} if num_gpus else {}
        built = build_engine(base_model, Settings(engine_num_gpus=chosen))
        assert options_of(built).ray_actor_options["num_gpus"] == expected

    def test_vllm_has_an_interpreter_of_its_own_and_its_folder_of_programs(self) -> None:
        python = Path("/opt/v llm/bin/python")
        settings = Settings(engine="vllm", engine_python=python, engine_tensor_parallel=2)
        built = options_of(build_engine("gpt2", settings, "a" * 40))
        assert built.ray_actor_options["runtime_env"] == {
            "py_executable": "'/opt/v llm/bin/python'",
            "env_vars": {"PATH": "/opt/v llm/bin:${PATH}"},
        }
        assert (built.name, built.ray_actor_options["num_gpus"]) == ("VllmEngine-aaaaaaaaaaaa", 2.0)

    @pytest.mark.parametrize("engine", ["builtin", "auto"])
    def test_our_own_engine_runs_where_the_service_does(self, engine: str) -> None:
        built = options_of(build_engine("gpt2", Settings(engine=engine, engine_python=Path("/opt/vllm/bin/python"))))
        assert (built.name, "runtime_env" in built.ray_actor_options) == ("Engine", False)

    def test_one_can_be_listed_in_the_config_file(self) -> None:
        text = SERVE_CONFIG.read_text()
        listed = yaml.safe_load(text[text.index("  # - name: engine-") :].replace("  # ", ""))[0]
        name, path = listed["name"], listed["import_path"]
        arguments = EngineSettings.model_validate(listed["args"])
        assert (name, path) == (EngineKey(arguments.base_model).application, "deployments.app:build_listed_engine")
        scaling = options_of(build_listed_engine(arguments))._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)

    def test_a_listed_one_tells_the_commit_that_it_loads(self, add_to_cache: AddToCache) -> None:
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "vocab_size": 100}
        add_to_cache("owner/model", {"config.json": config, "model.safetensors": b"w"}, "a" * 40)
        listed = build_listed_engine(EngineSettings(base_model="owner/model"))
        assert options_of(listed).name == "Engine-aaaaaaaaaaaa"
        assert options_of(listed).init_args[-1] == "a" * 40

    @pytest.mark.parametrize("base_model", ["../model", "", "a/b/c"])
    def test_a_listed_one_has_a_hub_id(self, base_model: str) -> None:
        with pytest.raises(ValidationError, match="base_model"):
            EngineSettings(base_model=base_model)


@pytest.mark.parametrize(("num_open", "is_busy"), [(0, False), (1, True)])
def test_a_replica_says_how_long_it_was_idle(num_open: int, is_busy: bool) -> None:
    replica = object.__new__(EngineDeployment)
    replica._num_open, replica._last_end_at = num_open, time.monotonic() - 60.0
    idle_s = asyncio.run(replica.idle_s())
    assert (idle_s == 0.0) if is_busy else (idle_s >= 60.0)


class FakeEngine:
    """An engine whose process is to end.

    Args:
        stuck_s: See `Engine.stuck_s`.
        failure: See `Engine.failure`.
        log: Gets what is asked of it.
    """

    def __init__(self, log: list[str], stuck_s: float = 0.0, failure: str | None = None) -> None:
        self.stuck_s, self.failure = stuck_s, failure
        self._log = log

    def kill(self) -> None:
        self._log.append("kill")
        if self.failure == "unkillable":
            raise OSError("stays")

    def close(self) -> None:
        self._log.append("close")


def replica_of(engine: Any) -> EngineDeployment:
    replica = object.__new__(EngineDeployment)
    replica._base_model, replica._step_timeout_s, replica._engine = "some/base", 120.0, engine
    return replica


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens when a replica's process ends itself."""
    log: list[str] = []
    monkeypatch.setattr("deployments.engine.os._exit", lambda code: log.append(f"exit {code}"))
    return log


@pytest.mark.parametrize(("stuck_s", "does_end"), [(0.0, False), (119.0, False), (121.0, True)])
def test_a_replica_whose_engine_is_stuck_ends(ends: list[str], stuck_s: float, does_end: bool) -> None:
    replica = replica_of(FakeEngine(ends, stuck_s))
    replica.check_health()
    assert ends == ["kill", "exit 1"] * does_end
    del replica._engine


def test_a_replica_whose_engine_has_failed_ends(ends: list[str], caplog: pytest.LogCaptureFixture) -> None:
    replica = replica_of(FakeEngine(ends, failure="its device has failed: CUDA error"))
    replica.check_health()
    assert ends == ["kill", "exit 1"]
    assert "the engine of some/base has failed: its device has failed: CUDA error" in caplog.text
    del replica._engine


def test_a_replica_ends_even_where_its_engines_processes_dont(ends: list[str]) -> None:
    replica = replica_of(FakeEngine(ends, failure="unkillable"))
    with pytest.raises(OSError, match="stays"):  # in this test the process goes on
        replica.check_health()
    assert ends == ["kill", "exit 1"]
    del replica._engine


@pytest.mark.parametrize(("resources", "expected"), [({}, 0.0), ({"CPU": 1.0, "GPU": 0.25}, 0.25)])
def test_an_engine_is_told_what_ray_has_assigned(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], expected: float
) -> None:
    context = SimpleNamespace(get_assigned_resources=lambda: resources)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    assert assigned_gpus() == expected


def test_without_ray_nobody_assigns_gpus() -> None:
    assert assigned_gpus() is None
