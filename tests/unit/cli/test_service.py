"""The command finds the service, or says what is wrong."""

from __future__ import annotations

import pytest

from sienn_ray.cli import output
from tests.unit.cli.running import done, refused, run


@pytest.mark.parametrize(
    "words",
    [
        ["jobs"],
        ["download", "some-job"],
        ["ask", "some-job", "hello"],
        ["compare", "some-job", "hello"],
        ["watch", "x"],
        ["logs", "x", "--follow"],
        ["events", "x"],
        ["cancel", "x"],
        ["dataset", "x"],
        ["train", "x"],
    ],
)
def test_a_service_that_does_not_answer_is_named_with_the_way_out(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIENN_URL", "http://127.0.0.1:1")
    message = refused(*words)
    assert "http://127.0.0.1:1 doesn't answer" in message
    assert "start it with `sienn serve`" in message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SIENN_PORT", "abc", "SIENN_PORT is 'abc', but must be a number from 1 to 65535"),
        ("SIENN_PORT", "70000", "SIENN_PORT is '70000', but must be a number from 1 to 65535"),
        ("SIENN_URL", "localhost:8000", "SIENN_URL is 'localhost:8000', but must begin with http:// or https://"),
    ],
)
def test_a_wrong_place_of_the_service_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.delenv("SIENN_URL", raising=False)
    monkeypatch.setenv(name, value)
    assert refused("jobs").startswith(message)


def test_a_url_may_end_with_a_slash(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIENN_URL", f"{service}/")
    done("jobs")


def test_health_shows_every_part(service: str) -> None:
    result = run("health")
    words = result.stdout.splitlines()
    assert result.exit_code == (1 if words[-1] == "unhealthy" else 0)
    assert any("records of datasets and jobs" in line for line in words)


def test_a_file_name_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"id": "1", "filename": "[/red]rows[bold].csv", "name": None}], ("id", "filename", "name"))
    shown = capsys.readouterr().out
    assert "[/red]rows[bold].csv" in shown
    assert "None" not in shown
