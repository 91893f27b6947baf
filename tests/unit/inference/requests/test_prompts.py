from __future__ import annotations

import pytest

from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.errors import ContextLengthError, InvalidInputError
from sienn_ray.inference.engine import GenerationRequest, SamplingParams
from sienn_ray.inference.requests.prompts import PromptEncoder
from tests.unit.inference.small_tokenizers import byte_level

TOKENIZER = byte_level()


def encoder(context_tokens: int | None = None, cache_tokens: int | None = None) -> PromptEncoder:
    return PromptEncoder("org/base", TOKENIZER, context_tokens=context_tokens, cache_tokens=cache_tokens)


def of_length(num_tokens: int, max_new_tokens: int) -> GenerationRequest:
    return GenerationRequest("a" * num_tokens, sampling=SamplingParams(max_new_tokens=max_new_tokens))


def test_a_conversation_is_rendered_by_the_adapters_format_or_the_base_models() -> None:
    request = GenerationRequest.ask("Why?", sampling=SamplingParams())
    own = PromptFormat(PromptKind.CHAT, "{{ messages[0]['content'] + '!' }}")
    assert encoder().encode(request).text == "### Instruction:\nWhy?\n\n### Response:\n"
    assert encoder().encode(request, own).text == "Why?!"
    assert encoder().encode(request, PromptFormat.for_text()).text == "Why?"


def test_text_goes_to_the_model_as_it_is_whatever_the_format() -> None:
    prompt = encoder().encode(GenerationRequest("abc"), PromptFormat.for_chat(TOKENIZER))
    assert (prompt.text, TOKENIZER.decode(prompt.input_ids)) == ("abc", "abc")


@pytest.mark.parametrize(
    ("limits", "limit", "whose"),
    [
        ((20, None), 20, "of org/base"),
        ((None, 20), 20, r"that fit \(SIENN_ENGINE_KV_CACHE_BYTES\)"),
        ((20, 30), 20, "of org/base"),
        ((30, 20), 20, "that fit"),
        ((20, 20), 20, "of org/base"),
    ],
)
def test_the_smaller_limit_holds_and_is_named(limits: tuple[int | None, int | None], limit: int, whose: str) -> None:
    encode = encoder(*limits).encode
    assert len(encode(of_length(15, limit - 15)).input_ids) == 15
    message = f"prompt has 16 tokens and max_new_tokens is 5; together they exceed the {limit} tokens {whose}"
    with pytest.raises(InvalidInputError, match=message):
        encode(of_length(16, limit - 15))


def test_an_answer_without_a_length_of_its_own_has_what_room_there_is() -> None:
    sampling = SamplingParams(max_new_tokens=10, fits_context=True)
    assert encoder(20).encode(GenerationRequest("a" * 5, sampling=sampling)).max_new_tokens == 10
    assert encoder(20).encode(GenerationRequest("a" * 16, sampling=sampling)).max_new_tokens == 4
    with pytest.raises(ContextLengthError, match="leave no room for an answer; shorten the prompt"):
        encoder(20).encode(GenerationRequest("a" * 20, sampling=sampling))


def test_without_limits_any_length_fits() -> None:
    assert len(encoder().encode(of_length(500, 10_000)).input_ids) == 500


def test_a_prompt_has_tokens() -> None:
    with pytest.raises(InvalidInputError, match="prompt has no tokens"):
        encoder().encode(GenerationRequest(""))
