from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from sienn_ray.base_model import load_causal_lm, load_tokenizer
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import ArtifactError, EngineError, InvalidBaseModelError, InvalidInputError
from sienn_ray.inference.engine import GenerationRequest, GenerationResult
from sienn_ray.inference.transformers_engine import TransformersEngine
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.adapters import add_adapter
from sienn_ray.training.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from sienn_ray.training.config import TrainingConfig
from tests.tiny_model import TINY_ID, add_to_hub_cache

CPU = torch.device("cpu")
PROMPT = "What is Python?"
GREEDY = GenerationRequest(prompt=PROMPT, max_new_tokens=12, do_sample=False, repetition_penalty=1.0)
SAMPLED = replace(GREEDY, do_sample=True, temperature=1.0, top_p=1.0, seed=1)


def with_adapter(name: str, request: GenerationRequest = GREEDY) -> GenerationRequest:
    return replace(request, adapter_id=name, adapter_key=f"adapters/{name}")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def adapter_folders(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random adapters as training publishes them; `minus` undoes what `plus` adds."""
    model = add_adapter(load_causal_lm(tiny_model_folder, CPU), TrainingConfig(base_model=TINY_ID))
    tokenizer = load_tokenizer(tiny_model_folder)
    folders = {}
    weights_b = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    torch.manual_seed(0)
    noise = [torch.randn_like(parameter) * 0.2 for parameter in weights_b]
    for name, sign in (("plus", 1.0), ("minus", -1.0), ("half", 0.5)):
        for parameter, values in zip(weights_b, noise, strict=True):
            parameter.data = values * sign
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink()
        tokenizer.save_pretrained(folder, save_jinja_files=False)
        (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat.for_chat(tokenizer).to_json())
        folders[name] = folder
    return folders


@pytest.fixture(scope="module", autouse=True)
def base_model_in_hub_cache(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("hub-home")
    add_to_hub_cache(tiny_model_folder, home, TINY_ID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path, engine_num_cpus=1)


@pytest.fixture
def storage(settings: Settings, adapter_folders: dict[str, Path]) -> Storage:
    storage = Storage(settings.storage_url)
    for name, folder in adapter_folders.items():
        storage.publish(folder, f"adapters/{name}")
    return storage


@pytest.fixture
def engine(settings: Settings, storage: Storage) -> TransformersEngine:
    return TransformersEngine(TINY_ID, settings)


@pytest.fixture(scope="module")
def answers(tiny_model_folder: Path, adapter_folders: dict[str, Path]) -> Callable[[str | None], tuple[str, int]]:
    """What plain transformers and PEFT say, greedily; with the number of prompt tokens."""
    tokenizer = load_tokenizer(tiny_model_folder)

    def ask(adapter: str | None) -> tuple[str, int]:
        model: Any = load_causal_lm(tiny_model_folder, CPU)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, adapter_folders[adapter])
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        options = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=2, eos_token_id=2)
        output = model.eval().generate(**prompt, generation_config=options)
        num_prompt_tokens = prompt["input_ids"].shape[1]
        return tokenizer.decode(output[0, num_prompt_tokens:], skip_special_tokens=True).strip(), num_prompt_tokens

    return ask


class TestAnswers:
    @pytest.mark.parametrize("adapter", [None, "plus", "minus"])
    def test_greedy_is_what_plain_peft_and_transformers_say(
        self, engine: TransformersEngine, answers: Callable[[str | None], tuple[str, int]], adapter: str | None
    ) -> None:
        result = engine.generate(GREEDY if adapter is None else with_adapter(adapter))
        assert (result.text, result.num_prompt_tokens) == answers(adapter)

    def test_adapters_change_the_answer_and_leave_the_base_model_as_it_was(self, engine: TransformersEngine) -> None:
        base = engine.generate(GREEDY)
        plus, minus = engine.generate(with_adapter("plus")), engine.generate(with_adapter("minus"))
        assert len({base.text, plus.text, minus.text}) == 3
        assert engine.generate(GREEDY).text == base.text
        assert engine.generate(with_adapter("plus")).text == plus.text

    def test_result_says_what_was_read_and_written(self, engine: TransformersEngine) -> None:
        result = engine.generate(GREEDY)
        assert result.rendered_prompt.endswith(f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n")
        assert (result.num_generated_tokens, result.finish_reason) == (12, "length")
        assert result.generation_time_s > 0

    def test_prompt_format_is_that_of_the_adapter(
        self, engine: TransformersEngine, storage: Storage, adapter_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = copy_of(adapter_folders["plus"], tmp_path)
        (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat.for_text().to_json())
        storage.publish(folder, "adapters/text")
        assert engine.generate(with_adapter("text")).rendered_prompt == PROMPT
        assert engine.generate(with_adapter("plus")).rendered_prompt != PROMPT

    def test_any_of_the_base_models_ends_of_turn_ends_the_answer(
        self, settings: Settings, tiny_model_folder: Path, tmp_path: Path
    ) -> None:
        model: Any = load_causal_lm(tiny_model_folder, CPU)
        prompt_ids = torch.tensor(
            [
                load_tokenizer(tiny_model_folder)(
                    TransformersEngine(TINY_ID, settings).generate(GREEDY).rendered_prompt
                )["input_ids"]
            ]
        )
        options = GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=2)
        ids = model.generate(prompt_ids, generation_config=options)[0, prompt_ids.shape[1] :].tolist()
        folder = copy_of(tiny_model_folder, tmp_path)
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, ids[-1]]}))
        add_to_hub_cache(folder, Path(huggingface_hub.constants.HF_HUB_CACHE).parent, "sienn-tests/two-ends")

        result = TransformersEngine("sienn-tests/two-ends", settings).generate(GREEDY)
        assert (result.num_generated_tokens, result.finish_reason) == (ids.index(ids[-1]) + 1, "stop")


class TestSampling:
    def test_seed_makes_an_answer_repeatable(self, engine: TransformersEngine) -> None:
        first, again = engine.generate(SAMPLED), engine.generate(SAMPLED)
        assert first.text == again.text

    def test_other_seeds_give_other_answers(self, engine: TransformersEngine) -> None:
        assert len({engine.generate(replace(SAMPLED, seed=seed)).text for seed in range(4)}) == 4

    def test_without_a_seed_answers_differ(self, engine: TransformersEngine) -> None:
        assert len({engine.generate(replace(SAMPLED, seed=None)).text for _ in range(3)}) == 3

    def test_seed_does_not_touch_other_random_numbers(self, engine: TransformersEngine) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        engine.generate(SAMPLED)
        assert torch.equal(torch.rand(4), expected)

    def test_narrow_nucleus_is_greedy(self, engine: TransformersEngine) -> None:
        assert engine.generate(replace(SAMPLED, top_p=1e-6)).text == engine.generate(GREEDY).text

    def test_first_token_comes_before_the_last(self, engine: TransformersEngine) -> None:
        result = engine.generate(with_adapter("plus"))
        assert result.time_to_first_token_s is not None
        assert 0 < result.time_to_first_token_s < result.generation_time_s

    def test_repetition_penalty_is_applied(self, engine: TransformersEngine) -> None:
        adapted = with_adapter("plus", replace(GREEDY, max_new_tokens=30))
        assert engine.generate(replace(adapted, repetition_penalty=5.0)).text != engine.generate(adapted).text


class TestCache:
    def test_second_request_loads_nothing(self, engine: TransformersEngine) -> None:
        results = [engine.generate(with_adapter("plus")) for _ in range(3)]
        assert [result.adapter_cached for result in results] == [False, True, True]
        assert engine.num_adapter_loads == 1
        assert engine.num_adapters == 1

    def test_base_model_loads_nothing(self, engine: TransformersEngine) -> None:
        assert engine.generate(GREEDY).adapter_cached
        assert engine.num_adapter_loads == 0

    def test_least_recently_used_adapter_goes_first(self, settings: Settings, storage: Storage) -> None:
        engine = TransformersEngine(TINY_ID, settings.model_copy(update={"adapter_cache_max_count": 2}))
        order = ["plus", "minus", "plus", "half", "plus", "minus", "half"]
        is_cached = [engine.generate(with_adapter(name)).adapter_cached for name in order]
        assert is_cached == [False, False, True, False, True, False, False]
        assert engine.num_adapter_loads == 5

    def test_number_of_loaded_adapters_is_bounded(self, settings: Settings, storage: Storage) -> None:
        engine = TransformersEngine(TINY_ID, settings.model_copy(update={"adapter_cache_max_count": 1}))
        expected = {name: engine.generate(with_adapter(name)).text for name in ("plus", "minus", "half")}
        assert expected == {name: engine.generate(with_adapter(name)).text for name in expected}
        assert engine._peft is not None
        assert len(engine._cache) == 1
        assert len(engine._peft.peft_config) == 2  # with the idle one

    def test_bytes_of_loaded_adapters_are_bounded(
        self, settings: Settings, storage: Storage, adapter_folders: dict[str, Path]
    ) -> None:
        one_adapter = (adapter_folders["plus"] / ADAPTER_WEIGHTS).stat().st_size
        limited = settings.model_copy(update={"adapter_cache_max_bytes": one_adapter * 3 // 2})
        engine = TransformersEngine(TINY_ID, limited)
        for name in ("plus", "minus", "plus"):
            assert not engine.generate(with_adapter(name)).adapter_cached
        assert engine._cache.size_bytes == one_adapter

    def test_adapter_over_the_limit_is_refused_and_harms_nothing(self, settings: Settings, storage: Storage) -> None:
        engine = TransformersEngine(TINY_ID, settings.model_copy(update={"adapter_cache_max_bytes": 1_000}))
        base = engine.generate(GREEDY).text
        for _ in range(2):
            with pytest.raises(EngineError, match="SIENN_ADAPTER_CACHE_MAX_BYTES"):
                engine.generate(with_adapter("plus"))
            assert engine.generate(GREEDY).text == base


class TestConcurrency:
    def test_opposite_adapters_never_mix(self, engine: TransformersEngine) -> None:
        requests = [with_adapter("plus"), with_adapter("minus"), GREEDY]
        expected = [engine.generate(request).text for request in requests]
        with ThreadPoolExecutor(max_workers=6) as pool:
            results: list[GenerationResult] = list(pool.map(engine.generate, requests * 6))
        assert [result.text for result in results] == expected * 6

    def test_opposite_adapters_never_mix_while_they_are_loaded_and_unloaded(
        self, settings: Settings, storage: Storage
    ) -> None:
        engine = TransformersEngine(TINY_ID, settings.model_copy(update={"adapter_cache_max_count": 1}))
        requests = [with_adapter("plus"), with_adapter("minus"), GREEDY]
        expected = [engine.generate(request).text for request in requests]
        with ThreadPoolExecutor(max_workers=6) as pool:
            results = list(pool.map(engine.generate, requests * 3))
        assert [result.text for result in results] == expected * 3

    def test_time_to_the_first_token_counts_the_wait_for_a_turn(self, engine: TransformersEngine) -> None:
        with ThreadPoolExecutor(max_workers=4) as pool:
            results = list(pool.map(engine.generate, [GREEDY] * 4))
        waits = sorted(result.time_to_first_token_s or 0.0 for result in results)
        # Whoever came last waited for the others' answers.
        assert waits[-1] > min(result.generation_time_s for result in results)

    def test_cancelled_request_stops_at_the_next_token(self, engine: TransformersEngine) -> None:
        cancelled = threading.Event()
        cancelled.set()
        result = engine.generate(replace(GREEDY, max_new_tokens=500), cancelled)
        assert result.num_generated_tokens == 1
        assert engine.generate(GREEDY).num_generated_tokens == 12


def copy_of(folder: Path, parent: Path) -> Path:
    copy = parent / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


class TestRefusals:
    @pytest.fixture
    def folder(self, adapter_folders: dict[str, Path], tmp_path: Path) -> Path:
        """An adapter to spoil."""
        return copy_of(adapter_folders["plus"], tmp_path)

    def refused(self, engine: TransformersEngine, error: type[Exception], match: str) -> None:
        """The bad adapter is refused each time, and changes no other answer."""
        base = engine.generate(GREEDY).text
        for _ in range(2):
            with pytest.raises(error, match=match):
                engine.generate(with_adapter("bad"))
            assert engine.generate(GREEDY).text == base
        assert engine.generate(with_adapter("minus")).text != base
        with pytest.raises(error, match=match):
            engine.generate(with_adapter("bad"))
        assert engine.generate(GREEDY).text == base
        assert engine.generate(with_adapter("minus")).adapter_cached

    def test_adapter_of_another_base_model(self, engine: TransformersEngine, storage: Storage, folder: Path) -> None:
        edit_config(folder, base_model_name_or_path="other/model")
        storage.publish(folder, "adapters/bad")
        message = f"^adapters/bad was trained on 'other/model', this engine holds '{TINY_ID}'$"
        self.refused(engine, EngineError, message)

    def test_altered_weights(self, engine: TransformersEngine, storage: Storage, folder: Path) -> None:
        storage.publish(folder, "adapters/bad")
        weights = bytearray(storage.read_bytes(f"adapters/bad/{ADAPTER_WEIGHTS}"))
        weights[-1] ^= 1
        storage.write_bytes(f"adapters/bad/{ADAPTER_WEIGHTS}", bytes(weights))
        self.refused(engine, ArtifactError, "SHA-256 .* the file was altered")

    def test_adapter_that_is_not_there(self, engine: TransformersEngine) -> None:
        self.refused(engine, ArtifactError, "adapters/bad/manifest.json is missing from storage")

    @pytest.mark.parametrize(
        ("missing", "match"),
        [
            (ADAPTER_WEIGHTS, "has no adapter_model.safetensors; other formats of adapters are not loaded"),
            (ADAPTER_CONFIG, "adapter_config.json can't be read"),
            (PROMPT_FORMAT_FILE, "has no prompt_format.json"),
        ],
    )
    def test_adapter_without_a_file(
        self, engine: TransformersEngine, storage: Storage, folder: Path, missing: str, match: str
    ) -> None:
        (folder / missing).unlink()
        storage.publish(folder, "adapters/bad")
        self.refused(engine, ArtifactError, match)

    def test_pickled_weights(self, engine: TransformersEngine, storage: Storage, folder: Path) -> None:
        (folder / ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")
        storage.publish(folder, "adapters/bad")
        self.refused(engine, ArtifactError, "other formats of adapters are not loaded")

    @pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 100])
    def test_weights_that_cannot_be_read(
        self, engine: TransformersEngine, storage: Storage, folder: Path, content: bytes
    ) -> None:
        (folder / ADAPTER_WEIGHTS).write_bytes(content)
        storage.publish(folder, "adapters/bad")
        self.refused(engine, EngineError, f"^adapters/bad can't be loaded onto {TINY_ID}: ")

    def test_weights_of_another_shape(self, engine: TransformersEngine, storage: Storage, folder: Path) -> None:
        edit_config(folder, r=4)
        storage.publish(folder, "adapters/bad")
        self.refused(engine, EngineError, "can't be loaded onto")

    def test_weights_that_are_not_all_there(self, engine: TransformersEngine, storage: Storage, folder: Path) -> None:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        del tensors[next(name for name in tensors if "lora_B" in name)]
        save_file(tensors, folder / ADAPTER_WEIGHTS)
        storage.publish(folder, "adapters/bad")
        self.refused(engine, EngineError, "1 of its tensors are missing")

    def test_prompt_that_does_not_fit(self, engine: TransformersEngine) -> None:
        request = replace(GREEDY, prompt="word " * 2_100)
        with pytest.raises(InvalidInputError, match=r"max_new_tokens is 12; together they exceed the 2048 tokens"):
            engine.generate(request)

    def test_prompt_that_just_fits_is_answered_and_one_token_more_is_not(self, engine: TransformersEngine) -> None:
        num_prompt_tokens = engine.generate(GREEDY).num_prompt_tokens
        cancelled = threading.Event()
        cancelled.set()
        fits = replace(GREEDY, max_new_tokens=2_048 - num_prompt_tokens)
        assert engine.generate(fits, cancelled).num_generated_tokens == 1
        with pytest.raises(InvalidInputError, match=f"prompt has {num_prompt_tokens} tokens"):
            engine.generate(replace(fits, max_new_tokens=fits.max_new_tokens + 1), cancelled)

    def test_unknown_base_model(self, settings: Settings) -> None:
        with pytest.raises(InvalidBaseModelError, match="not in the local cache"):
            TransformersEngine("nobody/nothing", settings)
