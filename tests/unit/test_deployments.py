from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from deployments.app import build
from deployments.engines import application_name
from deployments.local_cluster import temp_dir
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


def test_two_homes_have_two_short_temp_dirs(tmp_path: Path) -> None:
    first, second = temp_dir(tmp_path / "a"), temp_dir(tmp_path / "b")
    assert first != second
    # A socket's path may have 107 bytes; Ray's own part of it takes up to 75 of them.
    assert len(str(first)) < 32
