from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.inference.vllm_engine.refusals import rank_bound, unsupported, way_out

# As PEFT writes an adapter's configuration, in part.
PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"], "bias": "none", "use_rslora": True,
    "use_dora": False, "modules_to_save": None, "lora_bias": False, "init_lora_weights": True, "rank_pattern": {},
    "alpha_pattern": {}, "layer_replication": None, "trainable_token_indices": None, "target_parameters": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {}, {"rank_pattern": {"q_proj": 64}, "alpha_pattern": {"q_proj": 1}}, {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False}, {"r": 64}, {"modules_to_save": []},
    ],
)  # fmt: skip
def test_what_counts_as_vllm_counts_is_served(change: dict[str, Any]) -> None:
    assert unsupported(PLAIN | change, max_rank=64) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "uses DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules of its own"),
        ({"bias": "lora_only"}, "trains biases"),
        ({"lora_bias": True}, "has biases"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"target_parameters": ["experts"]}, "aren't linear layers"),
        ({"trainable_token_indices": [5]}, "embeddings of tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
        ({"r": 65}, "has rank 65, and SIENN_ENGINE_MAX_LORA_RANK is 64"),
        ({"rank_pattern": {"q_proj": 128}}, "has rank 128"),
    ],
)
def test_what_does_not_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    reason = unsupported(PLAIN | change, max_rank=64)
    assert reason is not None
    assert words in reason
    assert "SIENN_ENGINE=builtin" in way_out(reason)
    assert ("raise it" in way_out(reason)) == ("rank" in words)


@pytest.mark.parametrize(("max_rank", "bound"), [(1, 1), (2, 8), (64, 64), (65, 128), (257, 320), (512, 512)])
def test_bound_is_one_that_vllm_takes(max_rank: int, bound: int) -> None:
    assert rank_bound(max_rank) == bound


def test_there_is_no_bound_beyond_the_largest() -> None:
    with pytest.raises(ValueError, match="up to 512, not 513"):
        rank_bound(513)
