from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sienn_ray import __version__
from sienn_ray.errors import ArtifactError
from sienn_ray.hub import commit_of
from sienn_ray.training import record
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.record import DatasetFacts, Losses, ResolvedFacts, RunRecord, RunResults

COMMIT = "0123456789abcdef" * 2 + "01234567"
BLOB = "ab" * 32


def a_record(**changes: Any) -> RunRecord:
    """The record of a small run."""
    fields: dict[str, Any] = {
        "job_id": "6f1c2d3e-0000-4000-8000-000000000000",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "base_model_revision": COMMIT,
        "base_model_sha256": "cd" * 32,
        "datasets": (DatasetFacts(role="train", id="d1", filename="r.csv", sha256=BLOB, num_rows=72, format="alpaca"),),
        "config": TrainingConfig(
            base_model="owner/base", seed=7, lora=LoraSettings(target_modules=("q_proj", "v_proj"))
        ),
        "resolved": ResolvedFacts(
            method="sft",
            precision="bfloat16",
            attention="sdpa",
            quantization=None,
            num_workers=2,
            threads_per_worker=1,
            rows_per_step=4,
            packed=False,
            device="a CPU",
        ),
        "versions": record.versions(),
        "results": RunResults(
            train_loss=1.25,
            eval_loss=1.5,
            history=(Losses(epoch=0, eval_loss=3.0), Losses(epoch=1, step=16, train_loss=1.25, eval_loss=1.5)),
            num_steps=16,
            num_tokens=1234,
            num_train_rows=64,
            num_eval_rows=8,
            best_epoch=1,
            best_step=16,
        ),
    }
    return RunRecord(**{**fields, **changes})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(folder: Path, **contents: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.safetensors").write_bytes(content)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record.write(tmp_path, a_record())
    assert record.read(tmp_path) == a_record()


def test_the_file_has_what_a_reader_looks_for(tmp_path: Path) -> None:
    record.write(tmp_path, a_record())
    fields = json.loads((tmp_path / "training_run.json").read_text())
    assert fields["created_at"] == "2026-01-02T03:04:05Z"
    assert (fields["base_model"], fields["seed"], fields["resolved"]["method"]) == ("owner/base", 7, "sft")
    assert fields["config"] == a_record().config.model_dump(mode="json")
    assert fields["datasets"][0]["sha256"] == BLOB
    assert TrainingConfig(**fields["config"]) == a_record().config


def test_times_are_utc() -> None:
    there = datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=2)))
    assert a_record(created_at=there).created_at.isoformat() == "2026-01-01T23:00:00+00:00"
    with pytest.raises(ValidationError):
        a_record(created_at=datetime(2026, 1, 2))


def test_a_loss_that_is_no_number_is_null(tmp_path: Path) -> None:
    results = a_record().results.model_copy(update={"eval_loss": float("nan")})
    record.write(tmp_path, a_record(results=results))
    assert record.read(tmp_path).results.eval_loss is None


def test_a_later_version_s_record_can_be_read(tmp_path: Path) -> None:
    fields = json.loads(a_record().model_dump_json())
    (tmp_path / record.FILE_NAME).write_text(json.dumps({**fields, "of_tomorrow": 1}))
    assert record.read(tmp_path) == a_record()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_what_is_no_record_is_said(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / record.FILE_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"training_run\.json can't be read"):
        record.read(tmp_path)


def test_versions_name_the_packages_that_are_there() -> None:
    found = record.versions()
    assert {"python", "platform", "machine", "torch", "transformers", "peft", "tokenizers", "ray"} <= found.keys()
    assert found["sienn_ray"] == __version__
    assert all(found.values())


def test_neither_ray_nor_torch_is_imported() -> None:
    program = (
        "import sys\n"
        "from sienn_ray.training import model_card, publication, record\n"
        "record.versions()\n"
        "assert not {'ray', 'torch'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("folder", "revision"),
    [
        (f"models--owner--base/snapshots/{COMMIT}", COMMIT),
        (f"models--owner--base/snapshots/{COMMIT}0", None),
        ("models--owner--base/snapshots/main", None),
        (f"models/{COMMIT}", None),
        ("models/owner--base", None),
    ],
)
def test_the_revision_is_that_of_a_snapshot(folder: str, revision: str | None) -> None:
    assert commit_of(Path("/cache") / folder) == revision


def test_the_hash_is_over_names_and_contents(tmp_path: Path) -> None:
    put(tmp_path, b=b"two", a=b"one")
    lines = f"{sha256(b'one')}  a.safetensors\n{sha256(b'two')}  b.safetensors\n"
    assert record.weights_sha256(tmp_path) == sha256(lines.encode())


def test_only_what_is_loaded_counts(tmp_path: Path) -> None:
    put(tmp_path / "one", model=b"weights")
    put(tmp_path / "more", model=b"weights", consolidated=b"again")
    put(tmp_path / "more" / "original", model=b"again")
    assert record.weights_sha256(tmp_path / "one") == record.weights_sha256(tmp_path / "more")


def test_an_index_says_what_is_loaded(tmp_path: Path) -> None:
    put(tmp_path / "shards", **{"model-1": b"one", "model-2": b"two"})
    expected = record.weights_sha256(tmp_path / "shards")
    put(tmp_path / "shards", consolidated=b"again")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert record.weights_sha256(tmp_path / "shards") == expected
    (tmp_path / "shards" / "model-2.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model-2\.safetensors"):
        record.weights_sha256(tmp_path / "shards")


def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path, secret=b"secret")
    put(tmp_path / "base", other=b"weights")
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (tmp_path / "base" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match="secret"):
        record.weights_sha256(tmp_path / "base")


def test_no_weights_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no safetensors"):
        record.weights_sha256(tmp_path)


def test_a_blob_of_the_hub_is_not_read(tmp_path: Path) -> None:
    """A link to nothing shows it: with the right name, its hash is known all the same."""
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{BLOB}")
    assert record.weights_sha256(snapshot) == sha256(f"{BLOB}  model.safetensors\n".encode())


@pytest.mark.parametrize("target", [f"blobs/{'ab' * 20}", f"elsewhere/{BLOB}", f"blobs/{BLOB}.incomplete"])
def test_any_other_link_is_read(tmp_path: Path, target: str) -> None:
    (tmp_path / target).parent.mkdir()
    (tmp_path / target).write_bytes(b"weights")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").symlink_to(os.path.join("..", target))  # noqa: PTH118
    assert record.weights_sha256(tmp_path / "base") == sha256(f"{sha256(b'weights')}  model.safetensors\n".encode())
