from __future__ import annotations

import pytest

from sienn_ray.inference.engine import GenerationRequest
from sienn_ray.inference.sampling import eos_token_ids, generation_options


def test_sampling_passes_on_what_was_asked_and_no_more() -> None:
    request = GenerationRequest(
        "hi", max_new_tokens=7, temperature=0.3, top_p=0.5, repetition_penalty=1.1, do_sample=True, seed=4
    )
    assert generation_options(request, eos_token_ids=[2, 3], pad_token_id=0) == {
        "max_new_tokens": 7,
        "repetition_penalty": 1.1,
        "do_sample": True,
        "temperature": 0.3,
        "top_p": 0.5,
        "top_k": 0,
        "eos_token_id": [2, 3],
        "pad_token_id": 0,
    }


def test_greedy_decoding_has_no_sampling_options() -> None:
    options = generation_options(GenerationRequest("hi", do_sample=False), eos_token_ids=[2], pad_token_id=0)
    assert options == {
        "max_new_tokens": 200,
        "repetition_penalty": 1.2,
        "do_sample": False,
        "eos_token_id": [2],
        "pad_token_id": 0,
    }


@pytest.mark.parametrize(
    ("model_config_value", "tokenizer_value", "expected"),
    [
        (None, None, []),
        (2, None, [2]),
        (None, 2, [2]),
        (2, 2, [2]),
        (0, 5, [0, 5]),
        ([151645, 151643], 151645, [151643, 151645]),
        ([], 7, [7]),
    ],
)
def test_every_end_token_counts_once(
    model_config_value: int | list[int] | None, tokenizer_value: int | None, expected: list[int]
) -> None:
    assert eos_token_ids(model_config_value, tokenizer_value) == expected
