from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from sienn_ray import cli


@pytest.mark.parametrize("words", [["jobs"], ["download", "some-job"], ["ask", "some-job", "hello"], ["watch", "x"]])
def test_a_service_that_does_not_answer_is_named_with_the_way_out(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIENN_URL", "http://127.0.0.1:1")
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 1
    assert "http://127.0.0.1:1 doesn't answer" in result.stderr
    assert "start it with `sienn serve`" in result.stderr
    assert "Traceback" not in result.output


def test_a_file_name_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    cli._table([{"id": "1", "filename": "[/red]rows[bold].csv"}], ("id", "filename"))
    assert "[/red]rows[bold].csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("meta", "shown"),
    [
        ({"current_epoch": 0, "total_epochs": 3, "current_loss": None}, ""),
        (
            {
                "current_epoch": 2,
                "total_epochs": 3,
                "current_loss": 0.5234,
                "eval_loss": 1.0,
                "tokens_per_s": 80.4,
                "time_left_s": 65.0,
            },
            "epoch 2/3  loss 0.523  eval loss 1.000  80 tokens/s  1:05 left",
        ),
    ],
)
def test_facts_of_a_running_job(meta: dict[str, Any], shown: str) -> None:
    assert cli._facts(meta) == shown
