"""What llama.cpp itself makes of the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from sienn_ray.base_model import load_tokenizer
from sienn_ray.errors import ExportError
from sienn_ray.export.gguf.model import GgufModel, ModelTexts, write_lora
from sienn_ray.export.options import GgufQuantization
from sienn_ray.export.weights.adapter_reader import Adapter
from tests.support.llama_cpp import opened
from tests.unit.export.conftest import ARCHITECTURES, BASE_MODEL, merged_by_peft, save_adapter, save_base

TEXTS = [
    "Hello, world!",
    "It's 5 o'clock.",
    "日本語 and a\n\ttab",
    "Hello <|end|> again",
    "0123456789",
    "What is machine learning?",
    "Write a haiku about rain.",
    "Explain TCP in 3 lines.",
    "你好",
    "def f(x):\n    return",
    "1234567 + 89 = ?",
    "naïve Straße",
    "  two spaces, then\n\n  more",
    "👨‍👩‍👧‍👦 skin 👍🏽",
    "SELECT * FROM ferries WHERE berth = 'C';",
    "https://example.org/a?b=c&d=e#f",
    "CAPITALS and lower, mixed CaSe",
    "a",
    "עברית हिन्दी",
    '{"role": "user", "content": "Hello"}',
]
# An embedding or two of the small models are larger than what their answers tell apart.
NUM_NEW_TOKENS = 12


def write(folder: Path, base: Path, adapter: Path, quantization: GgufQuantization) -> Path:
    path = folder / f"model-{quantization}.gguf"
    model = GgufModel(base, Adapter(adapter), quantization)
    texts = ModelTexts("small", BASE_MODEL, "{{ messages }}")
    with path.open("wb") as file:
        assert sum(model.write(file, texts, adapter, load_tokenizer(adapter))) == model.num_values
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_and_tokens_are_those_of_the_merged_model(
    base_folder: Callable[[str], Path], adapter_folder: Callable[[str], Path], tmp_path: Path, architecture: str
) -> None:
    base, adapter = base_folder(architecture), adapter_folder(architecture)
    expected, tokenizer = merged_by_peft(base, adapter), load_tokenizer(adapter)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    with torch.no_grad():
        logits = [expected(torch.tensor([each])).logits[0].numpy() for each in ids]
        answers = [_greedy(expected, each) for each in ids]
    with opened(write(tmp_path, base, adapter, GgufQuantization.F32)) as model:
        assert [model.tokenize(text) for text in TEXTS] == ids
        for own, reference in zip(map(model.logits, ids), logits, strict=True):
            np.testing.assert_allclose(own, reference, atol=2e-3 * np.abs(reference).max())
        assert [model.continuation(each, NUM_NEW_TOKENS) for each in ids] == answers


def _greedy(model: Any, ids: list[int]) -> list[int]:
    answer: list[int] = []
    while len(answer) < NUM_NEW_TOKENS:
        token = int(model(torch.tensor([ids + answer])).logits[0, -1].argmax())
        if token == model.config.eos_token_id:
            break
        answer.append(token)
    return answer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapter_alone_does_the_same_to_the_base_model(
    base_folder: Callable[[str], Path], tmp_path: Path, architecture: str
) -> None:
    base = base_folder(architecture)
    config = {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}
    adapter = save_adapter(tmp_path / "adapter", base, **config)
    nothing = save_adapter(tmp_path / "nothing", base)
    zeroed = Adapter(nothing)
    for parts in zeroed.layers.values():
        parts["b"].zero_()
    base_file, lora_file = tmp_path / "base.gguf", tmp_path / "lora.gguf"
    with base_file.open("wb") as file:
        texts = ModelTexts("small", BASE_MODEL, None)
        list(GgufModel(base, zeroed, GgufQuantization.F32).write(file, texts, adapter, load_tokenizer(adapter)))
    with lora_file.open("wb") as file:
        list(write_lora(file, base, Adapter(adapter), GgufQuantization.F32, "small"))
    expected = merged_by_peft(base, adapter)
    ids = load_tokenizer(adapter)(TEXTS[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        reference = expected(torch.tensor([ids])).logits[0].numpy()
    with opened(base_file, lora_file) as model:
        np.testing.assert_allclose(model.logits(ids), reference, atol=2e-3 * np.abs(reference).max())


@pytest.mark.parametrize("quantization", GgufQuantization)
def test_every_quantization_loads_and_has_llama_cpps_mix(
    base_folder: Callable[[str], Path],
    adapter_folder: Callable[[str], Path],
    tmp_path: Path,
    quantization: GgufQuantization,
) -> None:
    base, adapter = base_folder("qwen2"), adapter_folder("qwen2")
    path = write(tmp_path, base, adapter, quantization)
    fields = gguf.GGUFReader(path).fields
    assert fields["general.architecture"].contents() == "qwen2"
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    types = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    assert {kind for name, kind in types.items() if name.endswith(("_norm.weight", ".bias"))} == {Type.F32}
    assert MIX[quantization].items() <= {name: kind.name for name, kind in types.items()}.items()
    with opened(path) as model:
        logits = model.logits(model.tokenize(TEXTS[0]))
        assert bool(np.isfinite(logits).all())


# What `llama-quantize` makes of a model with three layers and two query heads for a key head.
MIX: dict[GgufQuantization, dict[str, str]] = {
    GgufQuantization.F32: {"token_embd.weight": "F32", "blk.0.attn_q.weight": "F32"},
    GgufQuantization.F16: {"token_embd.weight": "F16", "blk.0.attn_q.weight": "F16"},
    GgufQuantization.BF16: {"token_embd.weight": "BF16", "blk.0.attn_q.weight": "BF16"},
    GgufQuantization.Q8_0: {"output.weight": "Q8_0", "blk.0.attn_q.weight": "Q8_0"},
    GgufQuantization.Q6_K: {"output.weight": "Q6_K", "blk.0.ffn_up.weight": "Q6_K"},
    GgufQuantization.Q5_K_M: {"output.weight": "Q6_K", "blk.0.attn_v.weight": "Q5_K", "blk.2.attn_v.weight": "Q6_K"},
    GgufQuantization.Q5_K_S: {"output.weight": "Q6_K", "blk.2.attn_v.weight": "Q5_K"},
    GgufQuantization.Q4_K_M: {
        "blk.0.ffn_down.weight": "Q4_K",
        "blk.2.ffn_down.weight": "Q6_K",
        "blk.2.attn_q.weight": "Q4_K",
    },
    GgufQuantization.Q4_K_S: {
        "blk.0.attn_v.weight": "Q5_K",
        "blk.2.ffn_down.weight": "Q4_K",
        "blk.2.ffn_up.weight": "Q4_K",
    },
    GgufQuantization.Q3_K_M: {
        "blk.0.attn_v.weight": "Q5_K",
        "blk.2.attn_v.weight": "Q4_K",
        "blk.1.attn_output.weight": "Q4_K",
    },
    GgufQuantization.Q2_K: {
        "blk.0.attn_v.weight": "Q3_K",
        "blk.0.ffn_down.weight": "Q3_K",
        "blk.0.attn_q.weight": "Q2_K",
    },
}


def test_rows_that_are_no_whole_blocks_get_another_type(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama", hidden_size=288, head_dim=36)
    adapter = save_adapter(tmp_path / "adapter", base)
    path = write(tmp_path, base, adapter, GgufQuantization.Q4_K_M)
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert (types["blk.0.attn_q.weight"], types["blk.1.ffn_down.weight"]) == ("Q5_0", "Q4_K")
    assert types["output.weight"] == "Q8_0"
    with opened(path) as model:
        assert bool(np.isfinite(model.logits(model.tokenize(TEXTS[0]))).all())


def test_llama_3s_positions_reach_llama_cpp(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    base = save_base(tmp_path / "base", "llama", rope_parameters=rope)
    adapter = save_adapter(tmp_path / "adapter", base)
    ids = np.random.default_rng(0).integers(0, 200, 120).tolist()
    with torch.no_grad():
        reference = merged_by_peft(base, adapter)(torch.tensor([ids])).logits[0].numpy()
    with opened(write(tmp_path, base, adapter, GgufQuantization.F32)) as model:
        np.testing.assert_allclose(model.logits(ids), reference, atol=2e-3 * np.abs(reference).max())


def test_dora_is_merged_but_no_gguf_lora(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    base = base_folder("llama")
    adapter = save_adapter(tmp_path / "adapter", base, use_dora=True)
    with (
        (tmp_path / "lora.gguf").open("wb") as file,
        pytest.raises(ExportError, match=r"no DoRA .* leave out adapter_only"),
    ):
        list(write_lora(file, base, Adapter(adapter), GgufQuantization.F32, "small"))


def test_architecture_without_a_counterpart_is_named(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    config = json.loads((base_folder("llama") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["GemmaForCausalLM"]}))
    with pytest.raises(ExportError, match=r"GGUF is written for LlamaForCausalLM, .* this base model is a GemmaFor"):
        GgufModel(tmp_path, Adapter(save_adapter(tmp_path / "a", base_folder("llama"))), GgufQuantization.F16)
