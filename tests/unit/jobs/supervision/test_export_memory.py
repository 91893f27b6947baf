from __future__ import annotations

import json
from pathlib import Path

import pytest

from sienn_ray import catalog
from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization
from sienn_ray.jobs.supervision.export_memory import memory_need_bytes
from sienn_ray.settings import MIB, Settings

BASE_MODEL = "owner/not-in-any-cache"
ADAPTER = ExportOptions(format=ExportFormat.HUGGINGFACE)
MERGED = ExportOptions(format=ExportFormat.HUGGINGFACE, merged=True)
LORA = ExportOptions(format=ExportFormat.GGUF, adapter_only=True, quantization=GgufQuantization.F32)
GGUF = ExportOptions(format=ExportFormat.GGUF, quantization=GgufQuantization.F32)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A service that has a base model of 1 MiB times 1000 values in its largest matrix."""
    settings = Settings(env="test", home=tmp_path)
    folder = catalog.converted_folder(BASE_MODEL, settings.models_dir)
    folder.mkdir(parents=True)
    sizes = {"hidden_size": 1000, "vocab_size": MIB, "intermediate_size": 10}
    (folder / "config.json").write_text(json.dumps(sizes))
    return settings


@pytest.mark.parametrize("options", [ADAPTER, LORA])
def test_adapter_alone_needs_the_program_alone(settings: Settings, options: ExportOptions) -> None:
    assert memory_need_bytes(BASE_MODEL, options, settings) == 700 * MIB


@pytest.mark.parametrize("options", [MERGED, GGUF])
def test_whole_model_needs_four_copies_of_the_largest_matrix(settings: Settings, options: ExportOptions) -> None:
    assert memory_need_bytes(BASE_MODEL, options, settings) == (700 + 4 * 4 * 1000) * MIB
    assert memory_need_bytes("owner/unknown", options, settings) == 4096 * MIB
