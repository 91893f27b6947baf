"""A whole export in this process: what an interrupted one leaves, and what the next makes of it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForCausalLM

from sienn_ray.export.huggingface import model as huggingface
from sienn_ray.export.make import ExportRequest, make_export
from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization
from sienn_ray.export.targets import TARGETS, ExportTarget
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.tiny_model import add_to_hub_cache
from tests.unit.export.conftest import BASE_MODEL, merged_by_peft

REQUEST = ExportRequest(
    "export-1", "job-1", "adapters/job-1", BASE_MODEL, None, ExportOptions(format=ExportFormat.HUGGINGFACE, merged=True)
)


class LostError(Exception):
    """The run is lost here."""


class Run:
    """Makes exports of a small model in several shards."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.storage = Storage(self.settings.storage_url)

    def make(self, request: ExportRequest, lost_at: float = 2.0) -> bytes:
        def report(share: float, _: str) -> None:
            if share >= lost_at:
                raise LostError

        entry = make_export(request, self.storage, self.settings, report)
        content = self.storage.read_bytes(f"{request.key}/{entry.name}")
        assert len(content) == entry.size_bytes
        return content

    def parts(self, request: ExportRequest) -> list[str]:
        return sorted(key for key, _ in self.storage.changes(f"{request.key}/parts"))


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    base_folder: Callable[[str], Path],
    adapter_folder: Callable[[str], Path],
    tmp_path: Path,
) -> Run:
    monkeypatch.setattr(huggingface, "MAX_SHARD_BYTES", 3_000_000)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-home" / "hub"))
    add_to_hub_cache(base_folder("llama"), tmp_path / "hub-home", BASE_MODEL)
    found = Run(tmp_path / "home")
    found.storage.publish(adapter_folder("llama"), REQUEST.adapter_key)
    return found


@pytest.mark.parametrize("is_changed", [False, True])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.format)
def test_each_format_is_written_in_both_of_its_ways(run: Run, target: ExportTarget, is_changed: bool) -> None:
    asked = ExportOptions(
        format=target.format,
        quantization=GgufQuantization.Q8_0,
        merged=is_changed and "merged" in target.choices,
        adapter_only=is_changed and "adapter_only" in target.choices,
    )
    request = replace(REQUEST, options=target.options(asked, REQUEST.job_id))
    content = run.make(request)
    assert run.storage.manifest(request.key).files[0].name == target.file_name(request.options)
    is_archive = zipfile.is_zipfile(io.BytesIO(content))
    assert is_archive is (target.format is not ExportFormat.GGUF)
    assert is_archive or content.startswith(b"GGUF")


def test_export_after_a_lost_one_is_the_same_and_leaves_nothing_else(run: Run) -> None:
    with pytest.raises(LostError):
        run.make(REQUEST, lost_at=0.99)
    assert not run.storage.is_published(REQUEST.key)
    names = [key.rpartition("/")[2] for key in run.parts(REQUEST)]
    assert names == [f"model-{number:05}-of-{len(names) + 1:05}.safetensors" for number in range(1, len(names) + 1)]
    assert len(names) > 1
    content = run.make(REQUEST)
    assert run.parts(REQUEST) == []
    assert content == run.make(replace(REQUEST, export_id="export-2"))


def test_shards_of_a_lost_export_are_copied(run: Run) -> None:
    with pytest.raises(LostError):
        run.make(REQUEST, lost_at=0.99)
    first = run.parts(REQUEST)[0]
    marked = run.storage.read_bytes(first)[:-4] + b"mark"
    run.storage.write_bytes(first, marked)
    with zipfile.ZipFile(io.BytesIO(run.make(REQUEST))) as archive:
        assert archive.read(first.rpartition("/")[2]) == marked


def test_archive_is_the_merged_model(
    run: Run, base_folder: Callable[[str], Path], adapter_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(io.BytesIO(run.make(REQUEST))) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "model")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    expected = merged_by_peft(base_folder("llama"), adapter_folder("llama"))
    ids = torch.arange(1, 40).unsqueeze(0)
    torch.testing.assert_close(merged(ids).logits, expected(ids).logits, atol=1e-4, rtol=1e-4)
