"""Answers: the base model's own, by each request's adapter and sampling."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from sienn_ray.base_model import load_causal_lm, load_tokenizer
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import Engine
from sienn_ray.settings import EngineKind
from sienn_ray.storage import Storage
from tests.support.tiny_model import add_to_hub_cache
from tests.unit.inference.asking import GREEDY, PROMPT, SAMPLED, Listener, copy_of, sampled, with_adapter
from tests.unit.inference.conformance.conftest import ENGINES, Start


def test_every_kind_that_the_settings_know_is_held_to_the_suite() -> None:
    assert set(EngineKind) <= ENGINES.keys()


@pytest.mark.parametrize("adapter", [None, "plus", "minus"])
def test_greedy_is_what_plain_peft_and_transformers_say(
    engine: Engine, expected: Callable[[str | None], str], adapter: str | None
) -> None:
    assert generate(engine, GREEDY if adapter is None else with_adapter(adapter)).text == expected(adapter)


def test_result_says_what_was_read_and_written(engine: Engine, tiny_model_folder: Path) -> None:
    result = generate(engine, GREEDY)
    assert result.rendered_prompt.endswith(f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n")
    tokenizer = load_tokenizer(tiny_model_folder)
    assert result.num_prompt_tokens == len(tokenizer(result.rendered_prompt, add_special_tokens=False)["input_ids"])
    assert (result.num_generated_tokens, result.finish_reason) == (12, "length")
    assert result.time_to_first_token_s is not None
    assert result.generation_time_s > 0
    assert result.logprobs is None


def test_text_is_continued_as_it_is(engine: Engine) -> None:
    result = generate(engine, replace(GREEDY, prompt="Once upon"))
    assert (result.rendered_prompt, result.num_generated_tokens) == ("Once upon", 12)


def test_prompt_format_is_that_of_the_adapter(
    engine: Engine, storage: Storage, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(adapter_folders["plus"], tmp_path)
    (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat.for_text().to_json())
    storage.publish(folder, "adapters/text")
    assert generate(engine, with_adapter("text")).rendered_prompt == PROMPT
    assert generate(engine, with_adapter("plus")).rendered_prompt != PROMPT


def test_any_of_the_base_models_ends_of_turn_ends_the_answer(
    start: Start, tiny_model_folder: Path, tmp_path: Path, hub_home: Path
) -> None:
    model: Any = load_causal_lm(tiny_model_folder, torch.device("cpu"))
    prompt = generate(start(), GREEDY).rendered_prompt
    prompt_ids = torch.tensor([load_tokenizer(tiny_model_folder)(prompt)["input_ids"]])
    options = GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=2)
    ids = model.generate(prompt_ids, generation_config=options)[0, prompt_ids.shape[1] :].tolist()
    folder = copy_of(tiny_model_folder, tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, ids[-1]]}))
    add_to_hub_cache(folder, hub_home, "sienn-tests/two-ends")

    result = generate(start("sienn-tests/two-ends"), GREEDY)
    assert (result.num_generated_tokens, result.finish_reason) == (ids.index(ids[-1]) + 1, "stop")


class TestSampling:
    def test_seed_makes_an_answer_repeatable(self, engine: Engine) -> None:
        first, again = generate(engine, SAMPLED), generate(engine, SAMPLED)
        assert first.text == again.text

    def test_other_seeds_give_other_answers(self, engine: Engine) -> None:
        assert len({generate(engine, sampled(SAMPLED, seed=seed)).text for seed in range(4)}) == 4

    def test_without_a_seed_answers_differ(self, engine: Engine) -> None:
        assert len({generate(engine, sampled(SAMPLED, seed=None)).text for _ in range(3)}) == 3

    def test_seed_gives_the_same_answer_beside_others(self, engine: Engine) -> None:
        alone = generate(engine, SAMPLED).text
        others = [sampled(SAMPLED, seed=seed) for seed in range(2, 9)]
        with ThreadPoolExecutor(max_workers=8) as pool:
            together = list(pool.map(lambda request: generate(engine, request).text, [SAMPLED, *others]))
        assert together[0] == alone

    def test_seed_does_not_touch_other_random_numbers(self, engine: Engine) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        generate(engine, SAMPLED)
        assert torch.equal(torch.rand(4), expected)

    @pytest.mark.parametrize("narrow", [{"top_p": 1e-6}, {"top_k": 1}, {"min_p": 1.0}, {"temperature": 0.0}])
    def test_narrow_sampling_is_greedy(self, engine: Engine, narrow: dict[str, float]) -> None:
        assert generate(engine, sampled(SAMPLED, **narrow)).text == generate(engine, GREEDY).text

    @pytest.mark.parametrize(
        "penalty", [{"repetition_penalty": 5.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}]
    )
    def test_penalties_are_applied(self, engine: Engine, penalty: dict[str, float]) -> None:
        # The base model repeats itself.
        assert generate(engine, sampled(GREEDY, **penalty)).text != generate(engine, GREEDY).text


class TestLogprobs:
    def test_each_token_has_its_own_and_the_likeliest(self, engine: Engine) -> None:
        result = generate(engine, sampled(num_logprobs=2))
        assert result.logprobs is not None
        assert len(result.logprobs) == 12
        assert all(len(token.top) == 2 for token in result.logprobs)
        assert all(token.top[0].logprob == token.logprob <= 0 for token in result.logprobs)
        text = b"".join(token.token_bytes for token in result.logprobs).decode(errors="replace")
        assert text.strip() == result.text

    def test_they_are_those_before_penalties_and_temperature(self, engine: Engine) -> None:
        asked = sampled(max_new_tokens=1, num_logprobs=3)
        plain, changed = (
            generate(engine, request).logprobs
            for request in (asked, sampled(asked, temperature=0.2, repetition_penalty=5.0, do_sample=True, seed=1))
        )
        assert plain is not None
        assert changed is not None
        assert [token.token_id for token in plain[0].top] == [token.token_id for token in changed[0].top]
        assert [each.logprob for each in plain[0].top] == pytest.approx([each.logprob for each in changed[0].top])

    def test_deltas_together_have_all(self, engine: Engine) -> None:
        listener = Listener()
        engine.submit(sampled(num_logprobs=0), listener)
        result = listener.result()
        assert result.logprobs == tuple(token for delta in listener.deltas for token in delta.logprobs)
        assert all(token.top == () for token in result.logprobs)
