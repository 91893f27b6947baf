"""From a request's parameters to those of transformers' `generate`."""

from __future__ import annotations

from typing import Any

from sienn_ray.inference.engine import GenerationRequest


def generation_options(request: GenerationRequest, *, eos_token_ids: list[int], pad_token_id: int) -> dict[str, Any]:
    """Keyword arguments of `GenerationConfig`.

    `top_k` is switched off, since its default of 50 in transformers would quietly join what the user asked for.
    """
    options: dict[str, Any] = {
        "max_new_tokens": request.max_new_tokens,
        "repetition_penalty": request.repetition_penalty,
        "do_sample": request.do_sample,
        "eos_token_id": eos_token_ids,
        "pad_token_id": pad_token_id,
    }
    if request.do_sample:
        options |= {"temperature": request.temperature, "top_p": request.top_p, "top_k": 0}
    return options


def eos_token_ids(model_config_value: int | list[int] | None, tokenizer_value: int | None) -> list[int]:
    """Every token that ends an answer: those of the base model's generation settings, and the tokenizer's."""
    listed = model_config_value if isinstance(model_config_value, list) else [model_config_value]
    return sorted({token for token in [*listed, tokenizer_value] if token is not None})
