"""`sienn export` follows an export and downloads it."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import pytest

from sienn_ray.api.schemas.exports import ExportModelRequest
from sienn_ray.cli import exports
from sienn_ray.export.options import ExportFormat
from sienn_ray.export.targets import TARGETS, Choice, ExportTarget
from tests.support.fakes_exports import CHOSEN
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import done, refused, run


def test_an_export_is_followed_and_downloaded(exported: bytes, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    said = done("export", "job-1", "--quantization", "q8_0", "--output", str(target))
    assert "0%  The export waits for its turn" in said
    assert f"{target} ({len(exported)} bytes, SHA-256 " in said
    assert target.read_bytes() == exported
    listed = done("exports", "job-1")
    assert all(word in listed for word in ("gguf", "Q8_0", "completed", "100"))
    export_id = listed.split("\n")[1].split()[0]
    assert "is 'completed' and can't be cancelled" in refused("cancel-export", "job-1", export_id)
    assert done("delete-export", "job-1", export_id) == f"deleted: {export_id}\n"


def test_an_export_takes_every_field_of_its_request() -> None:
    options = set(inspect.signature(exports.export).parameters) - {"job_id", "output", "overwrite"}
    assert options == set(ExportModelRequest.model_fields)


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    ("target", "choice"),
    [pytest.param(target, choice, id=f"{target.format}-{choice}") for target in TARGETS for choice in target.choices],
)
def test_each_choice_of_an_export_reaches_the_service(
    tracker: InProcessTracker, tmp_path: Path, target: ExportTarget, choice: Choice
) -> None:
    option, value = f"--{choice.replace('_', '-')}", CHOSEN[choice]
    words = ["export", "job-1", "--format", target.format, "--output", str(tmp_path / "file")]
    done(*words)
    done(*words, "--overwrite", *([option] if value is True else [option, str(value)]))
    plain, chosen = (export.options for export in tracker.actor.exports("job-1").records)
    assert plain.format is chosen.format is target.format
    assert chosen != plain


def test_an_export_names_its_formats() -> None:
    said = done("export", "--help")
    assert all(format in said for format in ExportFormat)
    unknown = run("export", "job-1", "--format", "onnx")
    assert unknown.exit_code == 2
    assert "'onnx' is not one of" in unknown.stderr


def test_a_broken_download_goes_on(exported: bytes, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    partial = tmp_path / f"model.gguf.{hashlib.sha256(exported).hexdigest()[:12]}.partial"
    partial.write_bytes(exported[:1000])
    done("export", "job-1", "--output", str(target))
    assert target.read_bytes() == exported
    assert not partial.exists()


def test_a_download_that_is_not_what_was_exported_is_deleted(exported: bytes, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    partial = tmp_path / f"model.gguf.{hashlib.sha256(exported).hexdigest()[:12]}.partial"
    partial.write_bytes(b"x" * 1000)
    assert "isn't what was exported and was deleted" in refused("export", "job-1", "--output", str(target))
    assert not partial.exists()
    assert not target.exists()


def test_choices_of_an_export_reach_the_service(exported: bytes, tracker: InProcessTracker, tmp_path: Path) -> None:
    choices = ["--format", "ollama", "--model-name", "ferry", "--system", "Be brief.", "--top-k", "5"]
    done("export", "job-1", *choices, "--output", str(tmp_path / "o.zip"))
    [export] = tracker.actor.exports("job-1").records
    assert (export.options.model_name, export.options.system, export.options.sampling.top_k) == (
        "ferry",
        "Be brief.",
        5,
    )
    assert "--adapter-only is of the format gguf" in refused("export", "job-1", "--format", "ollama", "--adapter-only")
