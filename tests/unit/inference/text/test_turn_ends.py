from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, SamplingParams
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.sampling.logprobs import Sampled
from sienn_ray.inference.text.turn_ends import TurnEnds
from sienn_ray.inference.text.vocabulary import Vocabulary
from tests.support.chat_templates import TEMPLATES
from tests.unit.inference.small_tokenizers import byte_level

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
# Of each template: special tokens, and strings.
ENDS: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "ChatML": ({"<|im_start|>", "<|im_end|>"}, ()),
    "ChatML with a default system": ({"<|im_start|>", "<|im_end|>"}, ()),
    "headers": ({"<|start_header_id|>", "<|eot_id|>"}, ()),
    "roles by name": ({"<|end|>"}, ("USER:",)),
    "braces": (set(), ("{{end}}", "{{user}}")),
    "plain": ({"<|end|>"}, ("### Instruction:",)),
}
# What a model goes on with that begins a turn of the user instead of ending its own.
NEXT_TURN = {
    "ChatML": "<|im_start|>user\nCan you roast?",
    "ChatML with a default system": "<|im_start|>user\nCan you roast?",
    "headers": "<|start_header_id|>user<|end_header_id|>\n\nCan you roast?",
    "roles by name": " USER: Can you roast?",
    "braces": "{{user}}Can you roast?",
    "plain": "\n\n### Instruction:\nCan you roast?",
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    return tokenizer


def format_of(name: str) -> PromptFormat:
    return PromptFormat(PromptKind.CHAT, TEMPLATES[name])


def answered(tokenizer: Any, prompt_format: PromptFormat, text: str, prompt: str | None = None) -> tuple[str, str]:
    """The text of an answer whose tokens are those of `text`, as far as it comes, and why it ended."""
    deltas: list[GenerationDelta] = []
    request = GenerationRequest.ask("Hi", sampling=SamplingParams(max_new_tokens=500))
    if prompt is not None:
        request = GenerationRequest(prompt, sampling=SamplingParams(max_new_tokens=500))
    answer = Answer(request, deltas.append)
    encoder = PromptEncoder("org/base", tokenizer, context_tokens=None)
    answer.read(encoder.encode(request, prompt_format), Vocabulary(tokenizer), adapter_cached=True)
    answer.start()
    for token_id in [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]:
        if not answer.is_over:
            answer.take(Sampled(token_id), frozenset({tokenizer.eos_token_id}))
    result = deltas[-1].result
    assert result is not None
    return result.text, result.finish_reason


@pytest.mark.parametrize("name", TEMPLATES)
def test_marks_of_a_template(name: str, tokenizer: Any) -> None:
    ends = TurnEnds.of(format_of(name), tokenizer)
    tokens, strings = ENDS[name]
    assert set(tokenizer.convert_ids_to_tokens(sorted(ends.token_ids))) == tokens
    assert ends.strings == strings


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_beginning_of_another_turn_ends_an_answer(name: str, tokenizer: Any) -> None:
    said = f"73 degrees. - SmolLM{NEXT_TURN[name]}"
    assert answered(tokenizer, format_of(name), said) == ("73 degrees. - SmolLM", "stop")


def test_text_that_is_no_conversation_has_no_turns(tokenizer: Any) -> None:
    text = "a\n\n### Instruction:\nb"
    assert answered(tokenizer, format_of("plain"), text, prompt="Go on")[0] == text
    assert answered(tokenizer, PromptFormat.for_text(), text)[0] == text


def test_a_template_that_does_more_shows_no_marks(tokenizer: Any) -> None:
    counting = PromptFormat(PromptKind.CHAT, "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}")
    assert TurnEnds.of(counting, tokenizer) == TurnEnds()
