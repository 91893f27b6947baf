"""What an engine's application tells of itself, and which one is to be deployed anew."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import deployments.engine_versions
from deployments.engine_failures import VllmPause
from deployments.engine_versions import EngineVersion, digest_of, is_relevant, marker, version_of
from sienn_ray.inference.engine import GenerationRequest
from sienn_ray.settings import Settings

COMMIT = "a" * 40
ROOT = Path(__file__).parents[2]


def overview(*names: str) -> Any:
    """What of Serve's overview is looked at."""
    return SimpleNamespace(deployments=dict.fromkeys(names))


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("revision", [None, COMMIT])
@pytest.mark.parametrize("pause", [None, VllmPause(600, 1_762_943_400)])
def test_an_application_tells_its_version(is_listed: bool, revision: str | None, pause: VllmPause | None) -> None:
    version = EngineVersion("0123456789abcdef", 1_762_943_400_000, is_listed, revision, pause)
    assert version_of(overview("Engine", version.name)) == version


def test_one_of_before_tells_none() -> None:
    assert version_of(overview("Engine")) is None
    assert version_of(overview("Engine-aaaaaaaaaaaa")) is None


def test_a_branch_is_no_part_of_a_name() -> None:
    assert version_of(overview(EngineVersion("01", 2, revision="feature/x#1").name)) == EngineVersion("01", 2)


def test_the_marker_has_no_replica() -> None:
    deployment: Any = marker(EngineVersion("01", 2))._bound_deployment
    scaling = deployment._deployment_config.autoscaling_config
    assert (deployment.name, scaling.min_replicas, scaling.initial_replicas) == ("Version-01-2-any", 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"storage_url": "memory://other"},
        {"engine_max_batch": 8},
        {"adapter_cache_max_count": 3},
        {"generation_timeout_s": 5.0},
        {"stream_interval_s": 0.0},
    ],
)
def test_what_an_engine_reads_changes_its_version(change: dict[str, Any]) -> None:
    assert digest_of(Settings(env="test", **change)) != digest_of(Settings(env="test"))


def test_every_setting_that_an_engine_reads_counts() -> None:
    files = [
        *ROOT.glob("sienn_ray/inference/**/*.py"),
        ROOT / "deployments/engine.py",
        ROOT / "sienn_ray/base_model.py",
    ]
    read = {name for file in files for name in re.findall(r"\bsettings\.(\w+)", file.read_text())}
    fields = read.intersection(Settings.model_fields)
    assert len(fields) > 10
    assert [name for name in sorted(fields) if not is_relevant(name)] == []


@pytest.mark.parametrize("change", [{"port": 8001}, {"database_url": "sqlite://"}, {"max_upload_bytes": 5}])
def test_what_no_engine_reads_does_not(change: dict[str, Any]) -> None:
    assert digest_of(Settings(env="test", **change)) == digest_of(Settings(env="test"))


def test_credentials_are_no_part_of_it() -> None:
    with_secret, without = (Settings(env="test", storage_url=f"sftp://{login}host/x") for login in ("me@", ""))
    assert digest_of(with_secret) == digest_of(without)


def test_another_release_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(Settings(env="test"))
    monkeypatch.setattr(deployments.engine_versions, "code_version", lambda: "99.0")
    assert digest_of(Settings(env="test")) != before


@pytest.mark.parametrize(
    ("other", "replaces"),
    [
        (None, True),
        (EngineVersion("01", 5), True),
        (EngineVersion("02", 5), False),  # the same
        (EngineVersion("01", 15), False),  # of a service that was deployed later
        (EngineVersion("01", 5, is_listed=True), False),  # has settings of its own
    ],
)
def test_the_later_service_decides(other: EngineVersion | None, replaces: bool) -> None:
    assert EngineVersion("02", 10).replaces(other) == replaces


def test_a_request_of_a_newer_version_can_be_read_by_an_older_one() -> None:
    request = GenerationRequest.ask("Why?")
    newer = object.__new__(GenerationRequest)
    newer.__dict__.update(request.__dict__, a_new_field=3)
    assert pickle.loads(pickle.dumps(newer)).prompt == request.prompt
