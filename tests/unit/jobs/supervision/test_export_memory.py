from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from huggingface_hub import constants

from sienn_ray import catalog
from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization
from sienn_ray.jobs.supervision.export_memory import memory_need_bytes
from sienn_ray.settings import MIB, Settings
from tests.support.fakes_hub import FakeHub

BASE_MODEL = "owner/not-in-any-cache"
ADAPTER = ExportOptions(format=ExportFormat.HUGGINGFACE)
MERGED = ExportOptions(format=ExportFormat.HUGGINGFACE, merged=True)
LORA = ExportOptions(format=ExportFormat.GGUF, adapter_only=True, quantization=GgufQuantization.F32)
GGUF = ExportOptions(format=ExportFormat.GGUF, quantization=GgufQuantization.F32)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A service, out of reach of the hub, that has a base model of 1 MiB times 1000 values in its largest matrix."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
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


def test_a_model_that_is_not_here_is_measured_on_the_hub(tmp_path: Path, hub_home: Path, hub: FakeHub) -> None:
    header = {"embed": {"dtype": "F32", "shape": [1000, MIB], "data_offsets": [0, 4000 * MIB]}}
    content = json.dumps(header).encode()
    hub.files["owner/on-the-hub"] = {"model.safetensors": struct.pack("<Q", len(content)) + content}
    settings = Settings(env="test", home=tmp_path)
    assert memory_need_bytes("owner/on-the-hub", MERGED, settings) == (700 + 4 * 4 * 1000) * MIB
