from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ray.serve.schema import ApplicationStatus

from deployments.app import build
from deployments.health import engine_states, nodes_of
from deployments.local_cluster import temp_dir
from sienn_ray.api.cluster import EngineState, Nodes
from sienn_ray.inference.applications import application_name, base_model_of
from sienn_ray.settings import Settings

SERVE_CONFIG = Path(__file__).parents[2] / "serveconfig.yaml"


def test_serve_sees_the_type_of_the_application_arguments() -> None:
    assert inspect.signature(build).parameters["args"].annotation is Settings


def test_arguments_of_the_config_file_join_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIENN_MAX_RUNNING_JOBS", "7")
    (application,) = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    settings = Settings.model_validate(application["args"])
    assert (settings.env, settings.max_running_jobs) == ("production", 7)
    assert application["import_path"] == "deployments.app:build"


@pytest.mark.parametrize("base_model", ["gpt2", "Qwen/Qwen2.5-0.5B-Instruct"])
def test_application_names_have_no_slash(base_model: str) -> None:
    name = application_name(base_model)
    assert "/" not in name
    assert name.endswith(base_model.rsplit("/", 1)[-1])
    assert base_model_of(name) == base_model


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
