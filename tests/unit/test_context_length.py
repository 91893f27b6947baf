from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.context_length import check_context, context_tokens_of
from sienn_ray.errors import InvalidInputError


def yarn(factor: object, original: object = None) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 131072}}, 131072),
        # Qwen2.5 with YaRN, and DeepSeek-V3, whose positions count it already.
        ({"max_position_embeddings": 32768, "rope_scaling": yarn(4.0, 32768)}, 131072),
        ({"max_position_embeddings": 163840, "rope_scaling": yarn(40, 4096)}, 163840),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 2}}, 65536),
        ({"max_position_embeddings": 32768, "rope_parameters": yarn(2, 32768)}, 65536),
        # Llama 3.1.
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": None}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": yarn("much")}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": yarn(float("nan"))}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": yarn(1e300)}, 4096),
        ({"max_position_embeddings": "many", "text_config": [1]}, None),
        ({"max_position_embeddings": True}, None),
        ({}, None),
    ],
)
def test_tokens_are_those_of_the_configuration(config: dict[str, Any], tokens: int | None) -> None:
    assert context_tokens_of(config) == tokens


def test_what_is_too_long_is_refused_with_the_limit() -> None:
    with pytest.raises(InvalidInputError) as error:
        check_context("owner/base", 1024, 1025)
    assert error.value.message == (
        "max_length=1025 is more than the 1024 tokens that base model 'owner/base' reads; set max_length to 1024 or "
        "less, or choose a base model with a longer context"
    )


@pytest.mark.parametrize("context_tokens", [1024, None])
def test_what_fits_passes(context_tokens: int | None) -> None:
    check_context("owner/base", context_tokens, 1024)
