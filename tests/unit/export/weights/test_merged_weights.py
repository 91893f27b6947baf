from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sienn_ray.errors import ArtifactError, ExportError
from sienn_ray.export.weights.adapter_reader import Adapter
from sienn_ray.export.weights.merged_weights import MergedWeights
from tests.unit.export.conftest import ARCHITECTURES, merged_by_peft, save_adapter, save_base

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilized": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 5}},
    "few modules": {"target_modules": ["q_proj", "v_proj"]},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_tensor_is_what_peft_merges(
    base_folder: Callable[[str], Path], tmp_path: Path, architecture: str, config: dict[str, Any]
) -> None:
    base = base_folder(architecture)
    adapter = save_adapter(tmp_path / "adapter", base, **config)
    expected = merged_by_peft(base, adapter).state_dict()
    merged = MergedWeights(base, Adapter(adapter))
    changed = 0
    for name, spec in merged.specs.items():
        tensor = merged.read(name)
        assert tuple(tensor.shape) == spec.shape
        torch.testing.assert_close(tensor, expected[name], atol=2e-6, rtol=1e-5)
        changed += not torch.equal(tensor, load_file(base / "model.safetensors")[name])
    assert changed == len(Adapter(adapter).layers) > 0


def test_half_precision_is_rounded_once(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    base = shutil.copytree(base_folder("llama"), tmp_path / "base")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    adapter = save_adapter(tmp_path / "adapter", base)
    expected = merged_by_peft(base, adapter).state_dict()  # in float32 all through
    merged = MergedWeights(base, Adapter(adapter))
    for name in merged.specs:
        assert torch.equal(merged.read(name), expected[name].bfloat16())


def test_adapter_of_another_base_model_is_named(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", "llama", num_hidden_layers=4)
    adapter = Adapter(save_adapter(tmp_path / "adapter", other))
    with pytest.raises(ExportError, match=r"model\.layers\.3\..* and more, which the base model's files don't have"):
        MergedWeights(base_folder("llama"), adapter)


def test_shapes_that_do_not_fit_are_named(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", "llama", intermediate_size=256)
    merged = MergedWeights(base_folder("llama"), Adapter(save_adapter(tmp_path / "adapter", other)))
    with pytest.raises(ExportError, match="are for 256 x 256, the base model has 512 x 256; it was trained on another"):
        merged.read("model.layers.0.mlp.up_proj.weight")


def test_result_that_is_no_number_is_refused(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", base_folder("llama"))
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "layers.1.self_attn.q_proj.lora_B" in name)
    tensors[name][0, 0] = float("inf")
    save_file(tensors, adapter / "adapter_model.safetensors")
    merged = MergedWeights(base_folder("llama"), Adapter(adapter))
    with pytest.raises(ExportError, match=r"'model\.layers\.1\.self_attn\.q_proj' has values that are no numbers"):
        merged.read("model.layers.1.self_attn.q_proj.weight")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("peft_type", "LOHA", "of type LOHA; only LORA"),
        ("modules_to_save", ["lm_head"], "modules_to_save="),
        ("bias", "all", "bias=all"),
    ],
)
def test_what_cannot_be_merged_is_named(
    base_folder: Callable[[str], Path], tmp_path: Path, field: str, value: Any, words: str
) -> None:
    adapter = save_adapter(tmp_path / "adapter", base_folder("llama"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ExportError, match=words):
        Adapter(adapter)


def test_broken_weights_are_an_artifact_error(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", base_folder("llama"))
    (adapter / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ArtifactError, match="can't be read"):
        Adapter(adapter)
