from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
from sienn_ray.errors import ArtifactError, CapacityError, EngineError, InvalidBaseModelError, InvalidInputError
from sienn_ray.inference.batching_engine import BatchingEngine
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult, SamplingParams
from sienn_ray.inference.packed_linear import PackedLinear
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.adapters import add_adapter
from sienn_ray.training.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from sienn_ray.training.config import TrainingConfig
from tests.tiny_model import TINY_ID, add_to_hub_cache

WAIT_S = 60.0
CPU = torch.device("cpu")
PROMPT = "What is Python?"
GREEDY = GenerationRequest.ask(
    PROMPT, sampling=SamplingParams(max_new_tokens=12, do_sample=False, repetition_penalty=1.0)
)


def sampled(request: GenerationRequest = GREEDY, **changes: Any) -> GenerationRequest:
    """The same request with other sampling."""
    return replace(request, sampling=replace(request.sampling, **changes))


# A prompt whose answer doesn't end by itself for a long time; penalties would keep it from repeating itself.
ENDLESS = GREEDY
SAMPLED = sampled(do_sample=True, temperature=1.0, top_p=1.0, seed=1)


def with_adapter(name: str, request: GenerationRequest = GREEDY) -> GenerationRequest:
    return replace(request, adapter_id=name, adapter_key=f"adapters/{name}")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def adapter_folders(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random adapters as training publishes them; `minus` undoes what `plus` adds."""
    torch.manual_seed(0)
    model = add_adapter(load_causal_lm(tiny_model_folder, CPU), TrainingConfig(base_model=TINY_ID))
    tokenizer = load_tokenizer(tiny_model_folder)
    folders = {}
    weights_b = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
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
    return Settings(env="test", home=tmp_path, engine_num_cpus=1, engine_kv_cache_bytes=16 << 20)


@pytest.fixture
def storage(settings: Settings, adapter_folders: dict[str, Path]) -> Storage:
    storage = Storage(settings.storage_url)
    for name, folder in adapter_folders.items():
        storage.publish(folder, f"adapters/{name}")
    return storage


@pytest.fixture
def start(settings: Settings, storage: Storage) -> Iterator[Callable[..., BatchingEngine]]:
    """Starts an engine, with other settings or for another base model, and ends it after the test."""
    with ExitStack() as stack:

        def start(base_model: str = TINY_ID, **changes: Any) -> BatchingEngine:
            engine = BatchingEngine(base_model, settings.model_copy(update=changes))
            stack.callback(engine.close)
            return engine

        yield start


@pytest.fixture
def engine(start: Callable[..., BatchingEngine]) -> BatchingEngine:
    """With the usual settings."""
    return start()


class Listener:
    """Collects what comes for one request."""

    def __init__(self) -> None:
        self.deltas: list[GenerationDelta] = []
        self._has_text = threading.Event()
        self._is_over = threading.Event()

    def __call__(self, delta: GenerationDelta) -> None:
        self.deltas.append(delta)
        self._has_text.set()
        if delta.is_last:
            self._is_over.set()

    def wait_for_text(self) -> None:
        assert self._has_text.wait(WAIT_S)

    def wait(self) -> GenerationDelta:
        """The last delta."""
        assert self._is_over.wait(WAIT_S)
        return self.deltas[-1]


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
        self, engine: BatchingEngine, answers: Callable[[str | None], tuple[str, int]], adapter: str | None
    ) -> None:
        result = generate(engine, GREEDY if adapter is None else with_adapter(adapter))
        assert (result.text, result.num_prompt_tokens) == answers(adapter)

    def test_adapters_change_the_answer_and_leave_the_base_model_as_it_was(self, engine: BatchingEngine) -> None:
        base = generate(engine, GREEDY)
        plus, minus = generate(engine, with_adapter("plus")), generate(engine, with_adapter("minus"))
        assert len({base.text, plus.text, minus.text}) == 3
        assert generate(engine, GREEDY).text == base.text
        assert generate(engine, with_adapter("plus")).text == plus.text

    def test_result_says_what_was_read_and_written(self, engine: BatchingEngine) -> None:
        result = generate(engine, GREEDY)
        assert result.rendered_prompt.endswith(f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n")
        assert (result.num_generated_tokens, result.finish_reason) == (12, "length")
        assert result.generation_time_s > 0

    def test_prompt_format_is_that_of_the_adapter(
        self, engine: BatchingEngine, storage: Storage, adapter_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = copy_of(adapter_folders["plus"], tmp_path)
        (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat.for_text().to_json())
        storage.publish(folder, "adapters/text")
        assert generate(engine, with_adapter("text")).rendered_prompt == PROMPT
        assert generate(engine, with_adapter("plus")).rendered_prompt != PROMPT

    def test_any_of_the_base_models_ends_of_turn_ends_the_answer(
        self, start: Callable[..., BatchingEngine], tiny_model_folder: Path, tmp_path: Path
    ) -> None:
        model: Any = load_causal_lm(tiny_model_folder, CPU)
        prompt_ids = torch.tensor(
            [load_tokenizer(tiny_model_folder)(generate(start(), GREEDY).rendered_prompt)["input_ids"]]
        )
        options = GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=2)
        ids = model.generate(prompt_ids, generation_config=options)[0, prompt_ids.shape[1] :].tolist()
        folder = copy_of(tiny_model_folder, tmp_path)
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, ids[-1]]}))
        add_to_hub_cache(folder, Path(huggingface_hub.constants.HF_HUB_CACHE).parent, "sienn-tests/two-ends")

        result = generate(start("sienn-tests/two-ends"), GREEDY)
        assert (result.num_generated_tokens, result.finish_reason) == (ids.index(ids[-1]) + 1, "stop")


class TestSampling:
    def test_seed_makes_an_answer_repeatable(self, engine: BatchingEngine) -> None:
        first, again = generate(engine, SAMPLED), generate(engine, SAMPLED)
        assert first.text == again.text

    def test_other_seeds_give_other_answers(self, engine: BatchingEngine) -> None:
        assert len({generate(engine, sampled(SAMPLED, seed=seed)).text for seed in range(4)}) == 4

    def test_without_a_seed_answers_differ(self, engine: BatchingEngine) -> None:
        assert len({generate(engine, sampled(SAMPLED, seed=None)).text for _ in range(3)}) == 3

    def test_seed_gives_the_same_answer_in_a_full_batch(self, engine: BatchingEngine) -> None:
        alone = generate(engine, SAMPLED).text
        others = [sampled(SAMPLED, seed=seed) for seed in range(2, 9)]
        with ThreadPoolExecutor(max_workers=8) as pool:
            together = list(pool.map(lambda request: generate(engine, request).text, [SAMPLED, *others]))
        assert together[0] == alone

    def test_stop_string_ends_the_answer_and_is_no_part_of_it(self, engine: BatchingEngine) -> None:
        text = generate(engine, with_adapter("plus")).text
        # Without blanks at its ends: the engine looks for it before it strips the text.
        stop = text[len(text) // 2 : len(text) // 2 + 3].strip()
        result = generate(engine, sampled(with_adapter("plus"), stop=(stop,)))
        assert (result.text, result.finish_reason) == (text[: text.index(stop)].rstrip(), "stop")

    def test_logprobs_are_given_where_they_are_asked_for(self, engine: BatchingEngine) -> None:
        result = generate(engine, sampled(num_logprobs=2))
        assert result.logprobs is not None
        assert len(result.logprobs) == 12
        assert all(token.top[0].logprob == token.logprob <= 0 for token in result.logprobs)
        assert b"".join(token.token_bytes for token in result.logprobs).decode(errors="replace").strip() == result.text
        assert generate(engine, GREEDY).logprobs is None

    def test_seed_does_not_touch_other_random_numbers(self, engine: BatchingEngine) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        generate(engine, SAMPLED)
        assert torch.equal(torch.rand(4), expected)

    def test_narrow_nucleus_is_greedy(self, engine: BatchingEngine) -> None:
        assert generate(engine, sampled(SAMPLED, top_p=1e-6)).text == generate(engine, GREEDY).text

    def test_first_token_comes_before_the_last(self, engine: BatchingEngine) -> None:
        result = generate(engine, with_adapter("plus"))
        assert result.time_to_first_token_s is not None
        assert 0 < result.time_to_first_token_s < result.generation_time_s

    def test_repetition_penalty_is_applied(self, engine: BatchingEngine) -> None:
        adapted = with_adapter("plus", sampled(max_new_tokens=30))
        assert generate(engine, sampled(adapted, repetition_penalty=5.0)).text != generate(engine, adapted).text


def test_model_that_packed_weights_do_not_suit_keeps_its_own(
    start: Callable[..., BatchingEngine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = generate(start(), GREEDY).text
    forward = PackedLinear.forward
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: 1.1 * forward(self, x))
    assert generate(start(), GREEDY).text == expected
    if torch._C.has_mkl:
        assert "can't have packed weights" in caplog.text


class TestCache:
    def test_second_request_loads_nothing(self, engine: BatchingEngine) -> None:
        results = [generate(engine, with_adapter("plus")) for _ in range(3)]
        assert [result.adapter_cached for result in results] == [False, True, True]
        assert engine.num_adapter_loads == 1
        assert engine.num_adapters == 1

    def test_adapter_that_was_loaded_ahead_is_there(self, engine: BatchingEngine) -> None:
        asked = with_adapter("plus")
        assert asked.adapter_id is not None
        assert asked.adapter_key is not None
        engine.load_adapter(asked.adapter_id, asked.adapter_key)
        assert generate(engine, asked).adapter_cached
        assert engine.num_adapter_loads == 1

    def test_base_model_loads_nothing(self, engine: BatchingEngine) -> None:
        assert generate(engine, GREEDY).adapter_cached
        assert engine.num_adapter_loads == 0

    def test_least_recently_used_adapter_goes_first(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start(adapter_cache_max_count=2)
        order = ["plus", "minus", "plus", "half", "plus", "minus", "half"]
        is_cached = [generate(engine, with_adapter(name)).adapter_cached for name in order]
        assert is_cached == [False, False, True, False, True, False, False]
        assert engine.num_adapter_loads == 5

    def test_number_of_loaded_adapters_is_bounded(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start(adapter_cache_max_count=1)
        expected = {name: generate(engine, with_adapter(name)).text for name in ("plus", "minus", "half")}
        assert expected == {name: generate(engine, with_adapter(name)).text for name in expected}
        assert engine.num_adapters == 1

    def test_bytes_of_loaded_adapters_are_bounded(
        self, start: Callable[..., BatchingEngine], adapter_folders: dict[str, Path]
    ) -> None:
        one_adapter = sum(tensor.nbytes for tensor in load_file(adapter_folders["plus"] / ADAPTER_WEIGHTS).values())
        engine = start(adapter_cache_max_bytes=one_adapter * 3 // 2)
        for name in ("plus", "minus", "plus"):
            assert not generate(engine, with_adapter(name)).adapter_cached
        assert engine._cache.size_bytes == one_adapter

    def test_adapter_over_the_limit_is_refused_and_harms_nothing(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start(adapter_cache_max_bytes=1_000)
        base = generate(engine, GREEDY).text
        for _ in range(2):
            with pytest.raises(EngineError, match="SIENN_ADAPTER_CACHE_MAX_BYTES"):
                generate(engine, with_adapter("plus"))
            assert generate(engine, GREEDY).text == base


class TestConcurrency:
    def test_opposite_adapters_never_mix(self, engine: BatchingEngine) -> None:
        requests = [with_adapter("plus"), with_adapter("minus"), GREEDY]
        expected = [generate(engine, request).text for request in requests]
        with ThreadPoolExecutor(max_workers=6) as pool:
            results: list[GenerationResult] = list(pool.map(lambda request: generate(engine, request), requests * 6))
        assert [result.text for result in results] == expected * 6

    def test_opposite_adapters_never_mix_while_they_are_loaded_and_unloaded(
        self, start: Callable[..., BatchingEngine]
    ) -> None:
        engine = start(adapter_cache_max_count=1)
        requests = [with_adapter("plus"), with_adapter("minus"), GREEDY]
        expected = [generate(engine, request).text for request in requests]
        with ThreadPoolExecutor(max_workers=6) as pool:
            results = list(pool.map(lambda request: generate(engine, request), requests * 3))
        assert [result.text for result in results] == expected * 3

    def test_time_to_the_first_token_counts_the_wait_for_a_place(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start(engine_max_batch=1)
        with ThreadPoolExecutor(max_workers=4) as pool:
            results = list(pool.map(lambda request: generate(engine, request), [GREEDY] * 4))
        waits = sorted(result.time_to_first_token_s or 0.0 for result in results)
        # Whoever came last waited for the others' answers.
        assert waits[-1] > min(result.generation_time_s for result in results)

    def test_requests_join_while_others_are_answered(self, engine: BatchingEngine) -> None:
        long, short = Listener(), Listener()
        generation = engine.submit(sampled(ENDLESS, max_new_tokens=1_900), long)
        long.wait_for_text()
        engine.submit(GREEDY, short)
        assert short.wait().result is not None
        assert not long.deltas[-1].is_last
        generation.cancel()
        assert long.wait().result is not None

    def test_a_long_prompt_is_read_in_pieces(self, start: Callable[..., BatchingEngine]) -> None:
        request = replace(GREEDY, prompt="word " * 300)
        request = with_adapter("plus", request)
        expected = generate(start(engine_step_tokens=10_000), request).text
        assert expected
        assert generate(start(engine_step_tokens=7, engine_max_batch=4), request).text == expected

    def test_cancelled_request_frees_its_place(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start(engine_max_batch=1)
        listener = Listener()
        generation = engine.submit(sampled(ENDLESS, max_new_tokens=1_900), listener)
        listener.wait_for_text()
        generation.cancel()
        result = listener.wait().result
        assert result is not None
        assert result.finish_reason == "cancelled"
        assert result.num_generated_tokens < 1_900
        assert generate(engine, GREEDY).num_generated_tokens == 12

    def test_deltas_together_are_the_answer(self, engine: BatchingEngine) -> None:
        listener = Listener()
        engine.submit(with_adapter("plus"), listener)
        result = listener.wait().result
        assert result is not None
        assert "".join(delta.text for delta in listener.deltas) == result.text
        assert len(listener.deltas) > 3


class TestLimits:
    def test_full_queue_is_refused(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start(engine_max_batch=1, engine_max_queue=1)
        first, second = Listener(), Listener()
        generation = engine.submit(sampled(ENDLESS, max_new_tokens=1_900), first)
        first.wait_for_text()
        engine.submit(GREEDY, second)
        with pytest.raises(CapacityError, match="SIENN_ENGINE_MAX_QUEUE"):
            engine.submit(GREEDY, Listener())
        generation.cancel()
        assert second.wait().result is not None

    def test_long_wait_ends_in_an_error(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start(engine_max_batch=1, engine_queue_timeout_s=0.2)
        first, second = Listener(), Listener()
        generation = engine.submit(sampled(ENDLESS, max_new_tokens=1_900), first)
        first.wait_for_text()
        engine.submit(GREEDY, second)
        error = second.wait().error
        assert isinstance(error, CapacityError)
        assert "SIENN_ENGINE_QUEUE_TIMEOUT_S" in error.message
        generation.cancel()

    def test_requests_wait_for_room_in_the_cache(self, start: Callable[..., BatchingEngine]) -> None:
        one_token = 2 * 2 * 2 * 16 * 4  # layers, keys and values, key heads, head size, float32
        engine = start(engine_kv_cache_bytes=96 * one_token)
        request = with_adapter("plus")
        expected = generate(engine, request).text
        assert expected
        with ThreadPoolExecutor(max_workers=6) as pool:
            results = list(pool.map(lambda request: generate(engine, request), [request] * 6))
        assert [result.text for result in results] == [expected] * 6

    def test_what_never_fits_into_the_cache_is_refused(self, start: Callable[..., BatchingEngine]) -> None:
        one_token = 2 * 2 * 2 * 16 * 4
        engine = start(engine_kv_cache_bytes=96 * one_token)
        with pytest.raises(InvalidInputError, match=r"96 tokens that fit \(SIENN_ENGINE_KV_CACHE_BYTES"):
            generate(engine, sampled(max_new_tokens=90))

    def test_equal_beginnings_are_computed_once(self, engine: BatchingEngine) -> None:
        request = with_adapter("plus", replace(GREEDY, prompt="word " * 100))
        first, second = generate(engine, request), generate(engine, request)
        assert first.num_cached_tokens == 0
        assert second.num_cached_tokens >= 64
        assert first.text == second.text != ""
        other = generate(engine, with_adapter("minus", request))
        assert other.num_cached_tokens == 0
        assert other.text != first.text

    def test_a_listener_that_fails_harms_no_other(self, engine: BatchingEngine) -> None:
        def fail(delta: GenerationDelta) -> None:
            raise RuntimeError("Event loop is closed")

        expected = generate(engine, with_adapter("plus")).text
        engine.submit(with_adapter("plus"), fail)
        assert generate(engine, with_adapter("plus")).text == expected

    def test_scores_that_are_no_numbers_end_their_own_request_only(
        self, start: Callable[..., BatchingEngine], storage: Storage, adapter_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = copy_of(adapter_folders["plus"], tmp_path)
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        save_file({name: tensor * 1e30 for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
        storage.publish(folder, "adapters/huge")
        engine = start()
        expected = generate(engine, sampled(with_adapter("plus"), max_new_tokens=40)).text
        listener = Listener()
        engine.submit(sampled(with_adapter("plus"), max_new_tokens=40), listener)
        with pytest.raises(EngineError, match="aren't numbers"):
            generate(engine, with_adapter("huge"))
        result = listener.wait().result
        assert result is not None
        assert result.text == expected

    def test_closed_engine_answers_nobody(self, start: Callable[..., BatchingEngine]) -> None:
        engine = start()
        listener = Listener()
        engine.submit(sampled(ENDLESS, max_new_tokens=1_900), listener)
        listener.wait_for_text()
        engine.close()
        assert isinstance(listener.wait().error, CapacityError)
        with pytest.raises(CapacityError, match="is stopping"):
            engine.submit(GREEDY, Listener())


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

    def refused(self, engine: BatchingEngine, error: type[Exception], match: str) -> None:
        """The bad adapter is refused each time, and changes no other answer."""
        base = generate(engine, GREEDY).text
        for _ in range(2):
            with pytest.raises(error, match=match):
                generate(engine, with_adapter("bad"))
            assert generate(engine, GREEDY).text == base
        assert generate(engine, with_adapter("minus")).text != base
        with pytest.raises(error, match=match):
            generate(engine, with_adapter("bad"))
        assert generate(engine, GREEDY).text == base
        assert generate(engine, with_adapter("minus")).adapter_cached

    def test_adapter_of_another_base_model(self, engine: BatchingEngine, storage: Storage, folder: Path) -> None:
        edit_config(folder, base_model_name_or_path="other/model")
        storage.publish(folder, "adapters/bad")
        message = f"^adapters/bad: the adapter was trained on 'other/model', this engine holds '{TINY_ID}'$"
        self.refused(engine, EngineError, message)

    def test_altered_weights(self, engine: BatchingEngine, storage: Storage, folder: Path) -> None:
        storage.publish(folder, "adapters/bad")
        weights = bytearray(storage.read_bytes(f"adapters/bad/{ADAPTER_WEIGHTS}"))
        weights[-1] ^= 1
        storage.write_bytes(f"adapters/bad/{ADAPTER_WEIGHTS}", bytes(weights))
        self.refused(engine, ArtifactError, "SHA-256 .* the file was altered")

    def test_adapter_that_is_not_there(self, engine: BatchingEngine) -> None:
        self.refused(engine, ArtifactError, "adapters/bad/manifest.json is missing from storage")

    @pytest.mark.parametrize(
        ("missing", "match"),
        [
            (ADAPTER_WEIGHTS, "adapter_model.safetensors can't be read; other formats aren't loaded"),
            (ADAPTER_CONFIG, "adapter_config.json can't be read"),
            (PROMPT_FORMAT_FILE, "has no prompt_format.json"),
        ],
    )
    def test_adapter_without_a_file(
        self, engine: BatchingEngine, storage: Storage, folder: Path, missing: str, match: str
    ) -> None:
        (folder / missing).unlink()
        storage.publish(folder, "adapters/bad")
        self.refused(engine, ArtifactError, match)

    def test_pickled_weights(self, engine: BatchingEngine, storage: Storage, folder: Path) -> None:
        (folder / ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")
        storage.publish(folder, "adapters/bad")
        self.refused(engine, ArtifactError, "other formats aren't loaded")

    @pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 100])
    def test_weights_that_cannot_be_read(
        self, engine: BatchingEngine, storage: Storage, folder: Path, content: bytes
    ) -> None:
        (folder / ADAPTER_WEIGHTS).write_bytes(content)
        storage.publish(folder, "adapters/bad")
        self.refused(engine, ArtifactError, "^adapters/bad: adapter_model.safetensors can't be read")

    def test_weights_of_another_shape(self, engine: BatchingEngine, storage: Storage, folder: Path) -> None:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        name = next(name for name in tensors if "lora_A" in name)
        tensors[name] = tensors[name][:, 1:].contiguous()
        save_file(tensors, folder / ADAPTER_WEIGHTS)
        storage.publish(folder, "adapters/bad")
        self.refused(engine, EngineError, "the layer takes")

    def test_weights_that_are_not_all_there(self, engine: BatchingEngine, storage: Storage, folder: Path) -> None:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        del tensors[next(name for name in tensors if "lora_B" in name)]
        save_file(tensors, folder / ADAPTER_WEIGHTS)
        storage.publish(folder, "adapters/bad")
        self.refused(engine, EngineError, "only half of the weights")

    def test_prompt_that_does_not_fit(self, engine: BatchingEngine) -> None:
        request = replace(GREEDY, prompt="word " * 2_100)
        with pytest.raises(InvalidInputError, match=r"max_new_tokens is 12; together they exceed the 2048 tokens"):
            generate(engine, request)

    def test_prompt_that_just_fits_is_answered_and_one_token_more_is_not(self, engine: BatchingEngine) -> None:
        num_prompt_tokens = generate(engine, GREEDY).num_prompt_tokens
        fits = 2_048 - num_prompt_tokens
        listener = Listener()
        engine.submit(sampled(max_new_tokens=fits), listener).cancel()
        assert not isinstance(listener.wait().error, InvalidInputError)
        with pytest.raises(InvalidInputError, match=f"prompt has {num_prompt_tokens} tokens"):
            generate(engine, sampled(max_new_tokens=fits + 1))

    def test_unknown_base_model(self, settings: Settings) -> None:
        with pytest.raises(InvalidBaseModelError, match="not in the local cache"):
            BatchingEngine("nobody/nothing", settings)
