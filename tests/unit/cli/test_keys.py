"""Commands about API keys, against a service that asks for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from sienn_ray.api.app import create_app
from sienn_ray.cli import output
from sienn_ray.settings import Settings
from tests.support.fakes_backends import fake_backends
from tests.unit.cli.running import done, refused, serving

ADMIN_KEY = "an-admin-s-key-" + "x" * 32


@pytest.fixture(autouse=True)
def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings = Settings(env="test", home=tmp_path, auth="on", admin_key=ADMIN_KEY)
    with serving(create_app(fake_backends(settings))) as url:
        monkeypatch.setenv("SIENN_URL", url)
        monkeypatch.setenv("SIENN_API_KEY", ADMIN_KEY)
        monkeypatch.setattr(output.console, "width", 200)
        yield


def created(*words: str) -> tuple[str, str]:
    """Id and text of a new key."""
    said = done("keys", "create", *words)
    found = re.search(r"^id: (\S+)$.*^key: (sienn_\S+)$", said, re.MULTILINE | re.DOTALL)
    assert found, said
    return found[1], found[2]


def test_a_key_is_made_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    key_id, key = created(
        "Ada's laptop", "--owner", "ada", "--scope", "read", "--scope", "infer", "--expires-in", "90d"
    )
    listed = done("keys", "list")
    assert key_id in listed
    assert "infer,read" in listed
    assert key not in listed
    monkeypatch.setenv("SIENN_API_KEY", key)
    assert '"owner": "ada"' in done("keys", "whoami")
    done("jobs")
    assert "needs the scope 'admin'" in refused("keys", "list")


def test_a_key_is_rotated_and_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    old_id, old = created("laptop")
    said = done("keys", "rotate", old_id, "--grace", "1h")
    assert "key: sienn_" in said
    assert old not in said
    assert done("keys", "revoke", old_id) == f"revoked: {old_id} (laptop)\n"
    monkeypatch.setenv("SIENN_API_KEY", old)
    assert "has been revoked" in refused("jobs")


@pytest.mark.parametrize("key", ["", " ", "wrong"])
def test_who_comes_without_a_key_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("SIENN_API_KEY", key)
    assert refused("jobs") == (
        "the API key isn't valid; SIENN_API_KEY has it"
        if key.strip()
        else "this needs an API key; put one into SIENN_API_KEY (an admin makes one with `sienn keys create`)"
    )


@pytest.mark.parametrize("duration", ["90", "d", "1w", "-1d", "1.5h"])
def test_a_duration_has_a_unit(duration: str) -> None:
    message = refused("keys", "create", "laptop", f"--expires-in={duration}")
    assert message == f"--expires-in is '{duration}', but must be a number with a unit, as in 90d, 12h, 30m or 10s"


def test_a_token_does_in_place_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = created("laptop", "--owner", "ada", "--scope", "read")
    form = {"grant_type": "client_credentials", "client_id": key.split("_")[1], "client_secret": key}
    token = httpx2.post(f"{os.environ['SIENN_URL']}/api/auth/token", data=form).json()["access_token"]
    monkeypatch.setenv("SIENN_API_KEY", token)
    said = done("keys", "whoami")
    assert '"owner": "ada"' in said
    assert '"credential": "access_token"' in said
    done("jobs")
    monkeypatch.setenv("SIENN_API_KEY", token[:-4] + "AAAA")
    assert "the token's signature isn't right; SIENN_API_KEY has it" in refused("jobs")


def test_tokens_get_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"tokens are signed with [A-Za-z0-9_-]{43} from now on\n", done("keys", "rotate-token-key"))
    _, key = created("laptop")
    monkeypatch.setenv("SIENN_API_KEY", key)
    assert "needs the scope 'admin'" in refused("keys", "rotate-token-key")


def test_sessions_of_an_owner_end() -> None:
    _, key = created("laptop", "--owner", "ada")
    url, headers = f"{os.environ['SIENN_URL']}/api/auth/session", {"Authorization": f"Bearer {key}"}
    assert httpx2.post(url, headers=headers).status_code == 201
    assert done("keys", "end-sessions", "ada") == "sessions of ada that have ended: 1\n"
    assert done("keys", "end-sessions", "https://id.example.org|bob").endswith(": 0\n")


def test_limits_of_an_owner_are_set_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = done("limits", "set", "ada", "--max-pending-jobs", "3")
    assert re.search(r"ada +pending_jobs +0 +3 +True", said)
    assert re.search(r"ada +exports +0 +False", done("limits", "show", "ada"))
    _, key = created("laptop", "--owner", "ada")
    monkeypatch.setenv("SIENN_API_KEY", key)
    assert re.search(r"ada +pending_jobs +0 +3 +True", done("limits", "show"))
    assert "other owners are for admins" in refused("limits", "show", "bob")


def test_usage_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = created("laptop", "--owner", "ada")
    monkeypatch.setenv("SIENN_API_KEY", key)
    done("jobs")
    assert re.search(r"ada +1 ", done("usage", "--group-by", "owner"))
    assert "from" in refused("usage", "--from", "yesterday")
