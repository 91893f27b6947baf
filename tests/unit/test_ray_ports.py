"""Ray's own ports ask for its token, in every manifest, and a service isn't deployed where they don't."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.local_cluster import _ENVIRONMENT
from deployments.ray_ports import ray_fault
from sienn_ray.settings import Settings

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deployments/kuberay"
# What Ray listens on that mustn't be reached from outside: GCS, dashboard, Ray Client, metrics, the dashboard's agent.
RAYS_PORTS = {6379, 8265, 10001, 8080, 52365}
API_PORT = 8000


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({"env": "test", **changes})


@pytest.mark.parametrize(
    ("environment", "address", "changes", "is_refused"),
    [
        ({}, "10.0.0.5", {}, True),
        ({"RAY_AUTH_MODE": "disabled"}, "10.0.0.5", {}, True),
        ({}, "fd00::5", {}, True),
        ({"RAY_AUTH_MODE": "token"}, "10.0.0.5", {}, False),
        ({"RAY_AUTH_MODE": "TOKEN"}, "10.0.0.5", {}, False),
        ({}, "127.0.0.1", {}, False),
        ({}, "::1", {}, False),
        ({}, "10.0.0.5", {"ray_auth": "off"}, False),
    ],
)
def test_a_cluster_that_asks_nobody_is_refused(
    environment: dict[str, str], address: str, changes: dict[str, str], is_refused: bool
) -> None:
    fault = ray_fault(settings(**changes), environment, address)
    assert (fault is not None) is is_refused
    if fault:
        assert address in fault
        assert "RAY_AUTH_MODE=token" in fault
        assert "SIENN_RAY_AUTH=off" in fault


def test_sienn_serve_has_it_on_and_listens_on_this_machine() -> None:
    assert _ENVIRONMENT["RAY_AUTH_MODE"] == "token"
    assert _ENVIRONMENT["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


def test_cluster_yaml_has_it_on() -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    commands = [command for command in cluster["setup_commands"] if "sienn.env" in command]
    assert any(re.search(r"\bRAY_AUTH_MODE=token\b", command) for command in commands)
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_kuberay_has_it_on() -> None:
    manifests = [each for path in KUBERAY.glob("*.yaml") for each in yaml.safe_load_all(path.read_text())]
    clusters = [each["spec"]["rayClusterConfig"] for each in manifests if each["kind"] == "RayService"]
    assert [cluster["authOptions"]["mode"] for cluster in clusters] == ["token"]
    assert {each["kind"] for each in manifests} == {"RayService", "NetworkPolicy"}  # others are to be looked at here


def test_the_image_has_it_on() -> None:
    text = (ROOT / "deployments/container/Dockerfile").read_text().replace("\\\n", " ")
    (environment,) = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    assert "RAY_AUTH_MODE=token" in environment.split()
    assert "SIENN_AUTH=on" in environment.split()
    assert set(re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE)) == {str(API_PORT)}


def test_the_readme_has_it_on() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.index("export RAY_AUTH_MODE=token") < readme.index("ray start --head")


class TestNetworkPolicy:
    @pytest.fixture
    def policies(self) -> dict[str, Any]:
        loaded = yaml.safe_load_all((KUBERAY / "networkpolicy.yaml").read_text())
        return {each["metadata"]["name"]: each["spec"] for each in loaded}

    def test_they_are_for_the_cluster_s_pods(self, policies: dict[str, Any]) -> None:
        selectors = [spec["podSelector"]["matchLabels"] for spec in policies.values()]
        assert selectors[0] == selectors[1]
        assert selectors[0]["ray.io/is-ray-node"] == "yes"

    def test_from_outside_only_the_api_is_reached(self, policies: dict[str, Any]) -> None:
        (rule,) = policies["sienn-api"]["ingress"]
        assert [port["port"] for port in rule["ports"]] == [API_PORT]
        assert RAYS_PORTS.isdisjoint({API_PORT})

    def test_ray_s_ports_are_for_the_cluster_s_pods_and_the_operator(self, policies: dict[str, Any]) -> None:
        own, operator = policies["sienn-ray"]["ingress"]
        assert "ports" not in own
        assert own["from"] == [{"podSelector": policies["sienn-ray"]["podSelector"]}]
        names = {each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for each in operator["from"]}
        assert names == {"kuberay-operator"}

    def test_no_rule_is_for_everybody(self, policies: dict[str, Any]) -> None:
        """An empty `from`, or a selector that selects all, would be."""
        for spec in policies.values():
            for rule in spec["ingress"]:
                assert rule["from"]
                for source in rule["from"]:
                    assert any(selector.get("matchLabels") for selector in source.values())

    def test_what_goes_out_is_written_down(self, policies: dict[str, Any]) -> None:
        assert set(policies["sienn-ray"]["policyTypes"]) == {"Ingress", "Egress"}
        (_, names, outside) = policies["sienn-ray"]["egress"]
        assert {port["port"] for port in names["ports"]} == {53}
        assert {port["port"] for port in outside["ports"]} == {443, 6443, 5432}
        assert outside["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
