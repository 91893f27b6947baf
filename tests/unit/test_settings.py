from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from sienn_ray.settings import GIB, EngineKind, Settings
from tools import settings_table


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("SIENN_"):
            monkeypatch.delenv(name)


def test_everything_kept_is_below_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.storage_url == f"file://{tmp_path}/storage"
    assert settings.database_url.get_secret_value() == f"sqlite:///{tmp_path}/sienn.db"
    assert settings.models_dir.is_relative_to(tmp_path)
    assert settings.adapters_dir.is_relative_to(tmp_path)


def test_home_defaults_to_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().home == tmp_path / ".sienn"
    assert Settings().storage_url == f"file://{tmp_path}/.sienn/storage"


@pytest.mark.parametrize("home", ["data", "~/data", "./data"])
def test_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=Path(home))
    assert settings.home == tmp_path / "data"
    assert settings.database_url.get_secret_value() == f"sqlite:///{tmp_path}/data/sienn.db"


def test_making_settings_touches_no_disk(tmp_path: Path) -> None:
    Settings(home=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("SIENN_HOME", "/srv/sienn", "storage_url", "file:///srv/sienn/storage"),
        ("SIENN_STORAGE_URL", "s3://bucket/sienn", "storage_url", "s3://bucket/sienn"),
        (
            "SIENN_DATABASE_URL",
            "postgresql+psycopg://db/sienn",
            "database_url",
            SecretStr("postgresql+psycopg://db/sienn"),
        ),
        ("SIENN_STORAGE_URL", "", "storage_url", f"file://{Path.home()}/.sienn/storage"),
        ("SIENN_PORT", "9000", "port", 9000),
        ("SIENN_TRAINING_GPU", "never", "training_gpu", "never"),
        ("SIENN_JOB_POLL_S", "0.5", "job_poll_s", 0.5),
        ("SIENN_ENGINE", "builtin", "engine", EngineKind.BUILTIN),
        ("SIENN_ENV", "production", "env", "production"),
    ],
)
def test_environment_sets_a_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: Any
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(Settings(), field) == expected


def test_environment_without_the_prefix_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/db")
    assert Settings().port == 8000
    assert Settings().database_url.get_secret_value().startswith("sqlite:///")


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIENN_PORT", "9000")
    assert Settings(port=9001).port == 9001


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 9000  # type: ignore[misc]


@pytest.mark.parametrize(
    "values",
    [
        {"prot": 9000},
        {"port": 0},
        {"port": 65536},
        {"max_upload_bytes": 0},
        {"max_running_jobs": 0},
        {"max_attempts": 0},
        {"job_poll_s": 0},
        {"job_poll_s": float("nan")},
        {"training_num_workers": 0},
        {"training_cpus_per_worker": -1},
        {"training_gpu": "sometimes"},
        {"engine": "vlm"},
        {"engine_num_gpus": -1},
        {"env": "staging"},
    ],
)
def test_unknown_names_and_bad_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        Settings(**values)


def test_without_secrets_hides_the_database_and_keeps_the_rest(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="postgresql+psycopg://sienn:hunter2@db/sienn", port=9000)
    shown = settings.without_secrets()
    assert "hunter2" not in repr(shown)
    assert "hunter2" not in shown.model_dump_json()
    assert shown.model_copy(update={"database_url": settings.database_url}) == settings


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_field_is_described(name: str) -> None:
    assert str(Settings.model_fields[name].description).endswith(".")


def test_page_of_settings_is_up_to_date() -> None:
    assert settings_table.PAGE.read_text() == settings_table.render(), (
        f"docs/settings.md differs from sienn_ray/settings.py; run `{settings_table.COMMAND}`"
    )


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"engine_min_replicas": 3, "engine_max_replicas": 2}, "engine_min_replicas=3 is more than"),
        ({"engine_tensor_parallel": 2}, "engine_tensor_parallel=2 needs engine=vllm, and engine is auto"),
        ({"engine": "builtin", "engine_tensor_parallel": 2}, "needs engine=vllm, and engine is builtin"),
        (
            {"engine": "vllm", "engine_tensor_parallel": 4, "engine_num_gpus": 0.5},
            "engine_num_gpus=0.5 isn't engine_tensor_parallel=4",
        ),
        ({"engine_step_tokens": 8, "engine_max_batch": 9}, "engine_step_tokens=8 is less than engine_max_batch=9"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(fields: dict[str, int], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        Settings(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["audit_lifetime_s", "webhook_delivery_lifetime_s", "webhook_give_up_after_s"])
def test_lifetimes_end_within_the_calendar(name: str) -> None:
    given: dict[str, Any] = {name: 1e12}
    with pytest.raises(ValidationError, match="less than or equal to 3153600000"):
        Settings(**given)


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "everything", "10.0.0.0/8,x"])
def test_networks_of_webhooks_are_networks(networks: str) -> None:
    with pytest.raises(ValidationError, match=r"webhook_allowed_networks"):
        Settings(webhook_allowed_networks=networks)


@pytest.mark.parametrize(
    ("given", "on_gpu", "expected"),
    [
        ({}, False, 256),
        ({}, True, 8192),
        ({"engine_step_tokens": 100}, True, 100),
        ({"engine_max_batch": 300}, False, 300),
    ],
)
def test_a_steps_tokens_are_the_devices_unless_they_are_given(
    given: dict[str, int], on_gpu: bool, expected: int
) -> None:
    assert Settings(env="test", **given).step_tokens(on_gpu=on_gpu) == expected  # type: ignore[arg-type]


def test_the_cache_of_an_engine_on_a_cpu_is_a_gib_unless_it_is_given() -> None:
    assert Settings(env="test").cpu_kv_cache_bytes == GIB
    assert Settings(env="test", engine_kv_cache_bytes=5).cpu_kv_cache_bytes == 5
