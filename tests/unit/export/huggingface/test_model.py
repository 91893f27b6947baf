from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from sienn_ray.export.huggingface.model import model_texts, text_files, weight_files
from sienn_ray.export.huggingface.safetensors_writer import plan_shards
from sienn_ray.export.weights.adapter_reader import Adapter
from sienn_ray.export.weights.checkpoint_reader import TensorSpec
from sienn_ray.export.weights.merged_weights import MergedWeights
from tests.unit.export.conftest import merged_by_peft


def written(folder: Path, base: Path, adapter: Path, max_shard_bytes: int) -> Path:
    weights = MergedWeights(base, Adapter(adapter))
    shards = plan_shards(weights.specs, max_shard_bytes)
    texts = model_texts("HuggingFaceTB/SmolLM2-135M-Instruct", "ferry", "job-1")
    for name, content in text_files(shards, base, adapter, texts).items():
        (folder / name).write_bytes(content)
    sizes = {shard.file_name: shard.size_bytes for shard in shards}
    for name, write in weight_files(weights, shards).items():
        with (folder / name).open("wb") as file:
            assert sum(write(file)) == sizes.pop(name)
    assert not sizes
    return folder


@pytest.mark.parametrize("max_shard_bytes", [10**12, 10**6])
def test_transformers_loads_the_merged_model(
    base_folder: Callable[[str], Path], adapter_folder: Callable[[str], Path], tmp_path: Path, max_shard_bytes: int
) -> None:
    base, adapter = base_folder("llama"), adapter_folder("llama")
    folder = written(tmp_path, base, adapter, max_shard_bytes)
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 1) is (max_shard_bytes == 10**6)
    assert (folder / "model.safetensors.index.json").exists() is (len(files) > 1)
    merged, expected = AutoModelForCausalLM.from_pretrained(folder), merged_by_peft(base, adapter)
    assert merged.dtype == torch.float32
    ids = AutoTokenizer.from_pretrained(folder)("Hello, world!", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(merged(ids).logits, expected(ids).logits, atol=1e-4, rtol=1e-4)
    for path in files:
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}


def test_card_says_what_the_hub_needs(
    base_folder: Callable[[str], Path], adapter_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    card = (written(tmp_path, base_folder("llama"), adapter_folder("llama"), 10**12) / "README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "base_model_relation: finetune" in card
    assert "license: apache-2.0" in card
    assert "# ferry" in card


def test_shards_are_full_but_not_fuller() -> None:
    specs = {f"tensor-{number}": TensorSpec((10, number), "F32") for number in (3, 5, 1, 9, 2)}
    shards = plan_shards(specs, 400)
    assert [list(shard.tensors) for shard in shards] == [
        ["tensor-3", "tensor-5", "tensor-1"],
        ["tensor-9"],
        ["tensor-2"],
    ]
    assert [shard.file_name for shard in shards] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert [shard.size_bytes for shard in shards] == [360, 360, 80]


def test_index_names_the_file_of_every_tensor(
    base_folder: Callable[[str], Path], adapter_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = written(tmp_path, base_folder("llama"), adapter_folder("llama"), 10**6)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    total = 0
    for name, file_name in index["weight_map"].items():
        with safe_open(folder / file_name, "pt") as file:
            total += file.get_tensor(name).nbytes
    assert total == index["metadata"]["total_size"]
