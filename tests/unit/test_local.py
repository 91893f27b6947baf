"""The service on this machine alone, without starting it."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments import access
from deployments.local import main, output_into
from sienn_ray.access.api_keys import ApiKey
from sienn_ray.settings import Settings
from tests.support.in_process_tracker import InProcessTracker


def test_what_native_code_writes_while_ray_ends_goes_into_a_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    os.write(2, b"before\n")
    with output_into(tmp_path / "ray.log"):
        os.write(2, b"core_worker.cc:842: lost the connection\n")
        sys.__stderr__.write("WARNING serve\n")  # type: ignore[union-attr]
        os.write(1, b"(raylet) Task ServeController.graceful_shutdown failed\n")
        sys.__stdout__.write("(raylet) another line\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
    os.write(2, b"after\n")
    os.write(1, b"the end\n")
    assert capfd.readouterr() == ("the end\n", "before\nafter\n")
    assert (tmp_path / "ray.log").read_text().splitlines() == [
        "core_worker.cc:842: lost the connection",
        "WARNING serve",
        "(raylet) Task ServeController.graceful_shutdown failed",
        "(raylet) another line",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "sienn.example.org"])
def test_other_machines_are_not_let_in_by_chance(
    host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIENN_AUTH", raising=False)
    assert main(["--host", host]) == 2
    assert capsys.readouterr().err == (
        f"error: the service would listen on {host}, where other machines may reach it, without asking who sends a "
        "request; set SIENN_AUTH=on to ask for API keys, or SIENN_AUTH=off to let whoever reaches it do everything\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_a_loopback_address_nobody_is_asked(host: str) -> None:
    assert Settings(auth="auto").access_fault(host) is None
    assert not Settings(auth="auto").is_auth_on


@pytest.mark.parametrize("auth", ["on", "off"])
def test_who_has_chosen_may_listen_anywhere(auth: Any) -> None:
    assert Settings(auth=auth).access_fault("0.0.0.0") is None
    assert Settings(auth=auth).access_fault(None) is None


def test_an_address_that_is_not_known_may_be_any() -> None:
    assert "on an address that isn't known" in str(Settings(auth="auto").access_fault(None))


class TestFirstAdminKey:
    """The key that a first start makes."""

    @pytest.fixture(autouse=True)
    def tracker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessTracker:
        tracker = InProcessTracker(Settings(env="test", home=tmp_path))
        monkeypatch.setattr(access, "ask", lambda call, *args: asyncio.run(getattr(tracker, call.__name__)(*args)))
        return tracker

    def test_it_is_made_once_and_for_its_user_alone(self, tmp_path: Path, tracker: InProcessTracker) -> None:
        settings = Settings(env="test", home=tmp_path, auth="on")
        path = access.make_first_admin_key(settings)
        assert path == tmp_path / "admin-key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = ApiKey.parsed(path.read_text().strip())
        (record,) = tracker.actor.api_keys().records
        assert key is not None
        assert record.is_of(key)
        assert record.principal.is_admin
        assert access.make_first_admin_key(settings) is None

    @pytest.mark.parametrize("fields", [{"auth": "off"}, {"auth": "auto"}, {"auth": "on", "admin_key": "x" * 32}])
    def test_it_is_not_made_where_nobody_needs_it(self, tmp_path: Path, fields: dict[str, Any]) -> None:
        assert access.make_first_admin_key(Settings(env="test", home=tmp_path, **fields)) is None
        assert not (tmp_path / "admin-key").exists()


def test_an_admin_key_is_shown_nowhere() -> None:
    settings = Settings(admin_key="a-secret-of-at-least-32-characters")
    assert "a-secret" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.without_secrets().admin_key is None
