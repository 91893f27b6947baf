"""No key, token, cookie or private key is in a log, an error or a URL, whatever is done with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from starlette.testclient import TestClient

from sienn_ray.access.principals import Scope
from sienn_ray.api.app import create_app
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.store import tables
from sienn_ray.settings import Settings, fault_words
from tests.support.fake_issuer import CLIENT_ID, CLIENT_SECRET, FakeIssuer, fake_issuer
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.test_authentication import ADMIN_KEY, key_of
from tests.unit.api.oidc.test_login import BACK, PAGE, start

HERE = "https://sienn.example.org"
TOKEN_KEY_SECRET = "the-secret-of-the-token-keys-0123456789"


@pytest.fixture
def fake() -> Iterator[FakeIssuer]:
    with fake_issuer() as issuer:
        yield issuer


@pytest.fixture
def settings(tmp_path: Path, fake: FakeIssuer) -> Settings:
    return Settings(
        env="test",
        home=tmp_path / "home",
        auth="on",
        admin_key=ADMIN_KEY,
        rate_limits="",
        token_rate_limits="",
        oidc_issuer=fake.url,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_default_scopes="read",
    )


class Watched:
    """A client that keeps what it is answered, but for the answers that are meant to have a secret."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self.seen: list[str] = []

    def __call__(self, method: str, path: str, *, keeps: bool = True, **options: Any) -> Any:
        response = self._client.request(method, path, **options)
        headers = [(name, value) for name, value in response.headers.items() if name != "set-cookie"]
        self.seen += [str(headers), response.text if keeps else ""]
        return response


def test_no_secret_is_in_a_log_an_error_or_a_url(
    settings: Settings, tracker: InProcessTracker, fake: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, logger="sqlalchemy.engine")  # with the values of its statements, if they are shown
    key = key_of(tracker, "ada", Scope.READ, key_id="key-1")
    secrets: dict[str, str] = {"key": key, "admin key": ADMIN_KEY, "client secret": CLIENT_SECRET}
    app = create_app(fake_backends(settings, tracker=tracker))
    with TestClient(app, base_url=HERE, follow_redirects=False, raise_server_exceptions=False) as client:
        ask = Watched(client)
        form = {"grant_type": "client_credentials", "client_id": key.split("_")[1], "client_secret": key}
        tokens = ask("POST", "/api/auth/token", data=form, keeps=False).json()
        secrets |= {"access token": tokens["access_token"], "refresh token": tokens["refresh_token"]}
        refreshing = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        secrets["second"] = ask("POST", "/api/auth/token", data=refreshing, keeps=False).json()["refresh_token"]
        # A login, and its session.
        url = start(client, next="/docs")
        way_back = fake.log_in(url).removeprefix(HERE)
        came = ask("GET", way_back, headers=BACK)
        assert came.status_code == 303
        secrets["session"] = client.cookies["__Host-sienn_session"]
        secrets["verifier"] = fake.forms[-1]["code_verifier"]
        ask.seen.append(url)
        # What goes wrong, in each way, with each secret wherever it may end up.
        ask("POST", "/api/auth/token", data=refreshing)
        ask("POST", "/api/auth/token", data={**form, "scope": tokens["refresh_token"]})
        ask("POST", "/api/auth/token", data={**form, "grant_type": key})
        ask("POST", "/api/auth/token", data={**form, "client_id": secrets["second"]})
        ask("POST", "/api/auth/token", json=form)
        ask("POST", "/api/auth/token", params=form)
        ask("GET", "/api/auth/me", params={"access_token": tokens["access_token"], "key": key})
        ask("GET", "/api/auth/callback", params={"code": key, "state": tokens["refresh_token"]})
        ask("GET", way_back, headers=BACK)
        for value in secrets.values():
            for headers in ({"Authorization": f"Bearer {value}x"}, {"X-API-Key": f"x{value}"}):
                ask("GET", "/api/jobs", headers=headers)
            ask("GET", "/api/jobs", headers={"Cookie": f"__Host-sienn_session={value}x"})
            ask("POST", "/api/auth/session", headers={"Authorization": f"Bearer {value}x"})
            ask("POST", "/api/start-finetuning", json={"api_key": value}, headers={"X-API-Key": ADMIN_KEY})
        for error in (CapacityError("the job tracker is restarting"), KeyError("unforeseen")):
            tracker.fail_with(error)
            ask("POST", "/api/auth/token", data=form)
            ask("POST", "/api/auth/token", data={**refreshing, "refresh_token": secrets["second"]})
            ask("GET", "/api/auth/me", headers=PAGE)
            ask("GET", "/api/auth/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
            tracker.fail_with(None)
        fake.answers = {"/keys": 500}
        ask("POST", "/api/auth/logout", headers=PAGE)
    with tracker.actor._store.database.reading() as connection:
        private = [json.loads(each)["d"] for each in connection.scalars(sa.select(tables.token_keys.c.private_jwk))]
        remembered = str(connection.execute(sa.text("SELECT * FROM change_requests")).all())
    assert private
    secrets["private key"] = private[0]
    # But for what the test's own client logs of itself.
    logged = [each.getMessage() for each in caplog.records if HERE not in each.getMessage()]
    logged += [str(each.exc_text) for each in caplog.records]
    assert logged
    seen = [*ask.seen, *logged, remembered]
    found = {
        (name, text[max(0, text.find(form) - 60) :][:100])
        for name, secret in secrets.items()
        for form in {*(secret, quote(secret), quote_plus(secret), repr(secret)[1:-1])}
        for text in seen
        if form in text
    }
    assert found == set()


def test_no_secret_of_the_settings_is_shown_or_handed_on(settings: Settings) -> None:
    full = settings.model_copy(
        update={"token_key_secret": Settings(token_key_secret=TOKEN_KEY_SECRET).token_key_secret}
    )
    secrets = (ADMIN_KEY, CLIENT_SECRET, TOKEN_KEY_SECRET)
    shown = f"{full!r} {full} {full.model_dump()} {full.model_dump_json()}"
    assert not any(secret in shown for secret in secrets)
    bare = full.without_secrets()
    assert (bare.admin_key, bare.oidc_client_secret, bare.token_key_secret) == (None, None, None)


@pytest.mark.parametrize("name", ["admin_key", "token_key_secret"])
def test_a_secret_that_is_too_short_is_not_shown_either(name: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        Settings.model_validate({name: "too-short-a-secret"})
    words = fault_words(wrong.value)
    assert words.startswith(f"SIENN_{name.upper()} ")
    assert "at least 32" in words
    assert "too-short-a-secret" not in words + str(wrong.value) + repr(wrong.value)
