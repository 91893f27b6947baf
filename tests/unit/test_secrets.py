"""Secrets, and each place that they must not show in."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr, ValidationError
from starlette.testclient import TestClient

from deployments.app import EngineSettings, build, build_listed_engine
from deployments.engine import EngineDeployment
from deployments.engine_versions import digest_of
from deployments.exposed_secrets import ExposedSecretError, check_no_exposed_secrets
from deployments.ingress import Ingress
from sienn_ray.api.app import create_app
from sienn_ray.errors import SiennError
from sienn_ray.jobs.deployment import Deployment
from sienn_ray.jobs.schema import JobQuery
from sienn_ray.jobs.store.connections import create_engine
from sienn_ray.jobs.supervision.ray_jobs import RayJobApi
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.settings import Settings, fault_words
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_jobs import FakeRayJobs, FakeRayLogs, no_mirror
from tests.support.in_process_tracker import Unwatched

PASSWORD = "hunter2-in-the-database"
DATABASE_URL = f"postgresql+psycopg://sienn:{PASSWORD}@127.0.0.1:1/sienn?connect_timeout=1"
ADMIN_KEY = "an-admin-s-key-that-nobody-may-see"
SECRETS = (PASSWORD, ADMIN_KEY)
# Fields whose names say that they are secrets, or that may hold a password.
SUSPICIOUS = ("key", "secret", "token", "password", "credential", "database_url")
NO_SECRETS = {
    "max_row_tokens",
    "hub_datasets_use_token",
    "engine_step_tokens",
    "token_lifetime_s",
    "token_key_lifetime_s",
    "token_rate_limits",
    "refresh_token_lifetime_s",
    "key_tokens_per_minute",
    "key_max_open_answers",
}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """From the environment, as in production, under the names that they have always had."""
    monkeypatch.setenv("SIENN_DATABASE_URL", DATABASE_URL)
    monkeypatch.setenv("SIENN_ADMIN_KEY", ADMIN_KEY)
    return Settings(env="test", home=tmp_path, auth="on")


def is_clean(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


def test_every_setting_that_sounds_like_a_secret_is_one() -> None:
    suspicious = {name for name in Settings.model_fields if any(word in name for word in SUSPICIOUS)}
    assert suspicious - NO_SECRETS - {"engine_kv_cache_bytes"} == set(Settings.secret_names())


def test_environment_variables_keep_their_names(settings: Settings) -> None:
    assert settings.database_url.get_secret_value() == DATABASE_URL
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == ADMIN_KEY


def test_settings_show_none_in_words(settings: Settings) -> None:
    for shown in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
        assert is_clean(shown)
    assert is_clean(repr(Deployment(settings, 0.0)))
    assert is_clean(repr(EngineSettings(base_model="gpt2")))
    assert is_clean(digest_of(settings))


def test_only_who_needs_them_gets_them(settings: Settings) -> None:
    """Engines, statistics, exports and training get the first; the ingress gets the second."""
    for given, secrets in ((settings.without_secrets(), SECRETS), (settings.without_database(), (PASSWORD,))):
        content = pickle.dumps(given)
        assert not any(secret.encode() in content for secret in secrets)
    tracker = Settings(home=settings.home, database_url=SecretStr(""))
    assert tracker.without_secrets().admin_key is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIENN_ADMIN_KEY", "too-short-secret"),
        ("SIENN_STORAGE_URL", f"sftp://sienn:{PASSWORD}@host/path"),
        ("SIENN_PUBLIC_URL", f"https://sienn:{PASSWORD}@host"),
        ("SIENN_PUBLIC_URL", f"ftp://sienn:{PASSWORD}@host"),
    ],
)
def test_a_value_that_is_refused_is_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError) as error:
        Settings()
    for words in (fault_words(error.value), str(error.value), repr(error.value)):
        assert PASSWORD not in words
        assert "too-short-secret" not in words
    assert fault_words(error.value).startswith(variable)


class TestServe:
    """Ray's dashboard and `serve status` show the arguments and the runtime environment of an application."""

    def test_secrets_of_the_environment_are_taken(self, settings: Settings) -> None:
        check_no_exposed_secrets(settings)
        assert build(settings) is not None

    @pytest.mark.parametrize(
        ("name", "value"),
        [("admin_key", ADMIN_KEY), ("database_url", DATABASE_URL), ("database_url", "postgresql://db/x?password=p")],
    )
    def test_an_argument_is_refused(self, tmp_path: Path, name: str, value: str) -> None:
        words = rf"SIENN_{name.upper()} is among the args of the application"
        with pytest.raises(ExposedSecretError, match=words) as error:
            build(Settings.model_validate({"home": tmp_path, name: value}))
        assert is_clean(str(error.value))
        with pytest.raises(ExposedSecretError):
            build_listed_engine(EngineSettings.model_validate({"base_model": "gpt2", "home": tmp_path, name: value}))

    @pytest.mark.parametrize("variable", ["SIENN_ADMIN_KEY", "SIENN_DATABASE_URL", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"])
    def test_a_runtime_environment_is_refused(self, settings: Settings, variable: str) -> None:
        with pytest.raises(ExposedSecretError, match=f"{variable} is among the env_vars"):
            check_no_exposed_secrets(settings, runtime_env={"env_vars": {variable: "x", "OMP_NUM_THREADS": "1"}})

    @pytest.mark.parametrize("url", ["sqlite:////srv/sienn.db", "postgresql+psycopg://db/sienn"])
    def test_a_url_without_a_password_is_none(self, tmp_path: Path, url: str) -> None:
        check_no_exposed_secrets(Settings(home=tmp_path, database_url=SecretStr(url)))


def test_ray_jobs_are_given_none() -> None:
    """Whatever is submitted shows in `ray job list`, in the dashboard, and in the command line of a process."""
    submitted: list[Any] = []

    class Client:
        def submit_job(self, **fields: Any) -> None:
            submitted.append(fields)

        def get_job_info(self, submission_id: str) -> Any:
            raise RuntimeError(f"Request failed with status code 404: job {submission_id} does not exist.")

    RayJobApi(Client()).submit("a1b2c3d4-5678-40ef-8123-456789abcdef", 1, {"sienn_job_id": "a1b2"})
    (fields,) = submitted
    assert set(fields) == {"entrypoint", "submission_id", "metadata"}
    assert is_clean(repr(fields))


def _unwatched(supervisor: Any, poll_s: float, *_: Any, what: str = "jobs", **__: Any) -> Unwatched:
    return Unwatched(what)


MALFORMED = [
    f"postgresql+psycopg://sienn:{PASSWORD}@host:port/sienn",
    f"{PASSWORD}",
    f"postgresql+nothing://sienn:{PASSWORD}@host/sienn",
    f"nothing://sienn:{PASSWORD}@host/sienn",
    f"postgresql+psycopg://sienn:{PASSWORD}@127.0.0.1:1/sienn?connect_timeout=1",
    f"postgresql+psycopg://sienn:{PASSWORD}@127.0.0.1:1/sienn?connect_timeout=1&nothing={PASSWORD}",
    f"postgresql+psycopg://sienn@127.0.0.1:1/sienn?connect_timeout=1&password={PASSWORD}",
]


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that any logger says, with tracebacks."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


@pytest.mark.parametrize("url", MALFORMED)
def test_errors_of_the_database_show_none(url: str, logged: io.StringIO) -> None:
    with pytest.raises(Exception) as error:  # noqa: PT011  (of SQLAlchemy, of the driver, or ours)
        create_engine(url).connect()
    logging.getLogger("test").error("the database", exc_info=error.value)
    assert PASSWORD not in logged.getvalue()


@pytest.mark.parametrize("url", MALFORMED)
def test_a_tracker_whose_database_is_away_shows_none(
    url: str, logged: io.StringIO, tmp_path: Path, settings: Settings
) -> None:
    settings = settings.model_copy(update={"database_url": SecretStr(url), "storage_url": f"file://{tmp_path}"})
    says = logging.getLogger("test")
    try:
        tracker = JobTracker(settings, FakeRayJobs(), no_mirror, ray_logs=FakeRayLogs(), supervise=_unwatched)
    except (SiennError, sa.exc.SQLAlchemyError, ValueError) as error:
        says.exception("the tracker", exc_info=error)
    else:
        says.error("%r", tracker.health())
        with pytest.raises(SiennError) as refused:
            tracker.jobs(JobQuery())
        says.error("%s", refused.value, exc_info=refused.value)
        tracker.close()
    assert PASSWORD not in logged.getvalue()


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/api/health/detailed",
        "/api/health/services",
        "/api/metrics",
        "/api/metrics/prometheus",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/api/auth/me",
        "/api/keys",
        "/api/jobs",
        "/nothing",
    ],
)
def test_responses_show_none(path: str, tmp_path: Path) -> None:
    settings = Settings(env="test", home=tmp_path, auth="on", admin_key=SecretStr(ADMIN_KEY))
    with TestClient(create_app(fake_backends(settings)), base_url="http://localhost") as client:
        for headers in ({"X-API-Key": ADMIN_KEY}, {"X-API-Key": "wrong"}, {}):
            response = client.get(path, headers=headers)
            assert is_clean(response.text + repr(dict(response.headers)))
        # A key in a query string would be in logs of proxies: it isn't taken.
        assert client.get("/api/jobs", params={"api_key": ADMIN_KEY}).status_code == 401


def test_the_names_of_actors_show_none() -> None:
    """Ray's dashboard names an actor by its class, or by what its `__repr__` says where it has one."""
    for actor in (JobTracker, Ingress, EngineDeployment):
        assert actor.__repr__ is object.__repr__
