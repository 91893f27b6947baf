"""The container and Kubernetes manifests: what can be said about them without building or applying them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from sienn_ray.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spec() -> dict[str, Any]:
    manifest = yaml.safe_load((ROOT / "deployments/kuberay/rayservice.yaml").read_text(encoding="utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    loaded: dict[str, Any] = manifest["spec"]
    return loaded


@pytest.fixture
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined."""
    text = (ROOT / "deployments/container/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, arguments) for name, _, arguments in (line.partition(" ") for line in lines)]


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")  # Ray Serve's own models, when first imported
def test_the_rayservice_holds_a_valid_serve_config(spec: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))

    assert [app.import_path for app in config.applications] == ["deployments.app:build"]


def test_the_rayservice_passes_settings_that_exist(spec: dict[str, Any]) -> None:
    arguments = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]

    assert Settings(**arguments).model_dump(include=set(arguments)) == arguments


def test_the_head_has_no_gpu_and_the_gpu_workers_start_at_none(spec: dict[str, Any]) -> None:
    cluster = spec["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    (group,) = cluster["workerGroupSpecs"]
    worker = group["template"]["spec"]["containers"][0]

    assert cluster["enableInTreeAutoscaling"] is True
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    assert group["maxReplicas"] > 0
    assert head["image"] == worker["image"]


def test_the_ray_version_is_one_that_the_project_takes(spec: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (ray,) = [r for r in map(Requirement, project["dependencies"]) if r.name == "ray"]

    assert spec["rayClusterConfig"]["rayVersion"] in ray.specifier


def test_the_image_serves_as_another_user_than_root(instructions: list[tuple[str, str]]) -> None:
    last = dict(instructions)

    assert last["FROM"] == "python:3.11-slim"
    assert last["USER"] not in {"root", "0"}
    assert json.loads(last["CMD"]) == ["sienn", "serve", "--host", "0.0.0.0"]


def test_the_image_copies_files_that_exist(instructions: list[tuple[str, str]]) -> None:
    sources = [source for name, arguments in instructions if name == "COPY" for source in arguments.split()[:-1]]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
