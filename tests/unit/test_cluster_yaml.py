"""`cluster.yaml` against the schema that Ray's cluster launcher checks it with."""

from __future__ import annotations

import copy
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from ray.autoscaler import sdk

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((resources.files("ray.autoscaler") / "ray-schema.json").read_text("utf-8"))
    return loaded


def test_it_matches_the_schema_of_ray(cluster: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.validate(cluster, schema)


def test_it_matches_the_schema_once_ray_has_filled_in_its_defaults(
    cluster: dict[str, Any], schema: dict[str, Any]
) -> None:
    filled = sdk.fillout_defaults(copy.deepcopy(cluster))

    jsonschema.validate(filled, schema)
    assert filled["available_node_types"] == cluster["available_node_types"]
    assert filled["setup_commands"] == cluster["setup_commands"]


def test_the_schema_catches_a_misspelt_key(cluster: dict[str, Any], schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        jsonschema.validate({**cluster, "idle_timeout_minuts": 10}, schema)


def test_the_head_has_no_gpu_and_the_gpu_workers_start_at_none(cluster: dict[str, Any]) -> None:
    node_types = cluster["available_node_types"]
    head = node_types[cluster["head_node_type"]]
    workers = [node_type for name, node_type in node_types.items() if name != cluster["head_node_type"]]

    assert head["resources"].get("GPU", 0) == 0
    assert [worker["min_workers"] for worker in workers] == [0]
    assert [worker["resources"]["GPU"] for worker in workers] == [1]
    assert 0 < workers[0]["max_workers"] <= cluster["max_workers"]
    assert workers[0]["node_config"]["InstanceType"] != head["node_config"]["InstanceType"]


def test_the_nodes_install_this_checkout(cluster: dict[str, Any]) -> None:
    commands = " ".join(cluster["setup_commands"])

    assert cluster["file_mounts"]["~/sienn_ray"] == "."
    assert "-e '.[s3,gpu]'" in commands
    assert "SIENN_STORAGE_URL=s3://" in commands


def test_ray_start_joins_the_nodes_and_reads_the_autoscaling_config(cluster: dict[str, Any]) -> None:
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in cluster["head_start_ray_commands"][-1]
    assert "--address=$RAY_HEAD_IP:6379" in cluster["worker_start_ray_commands"][-1]
