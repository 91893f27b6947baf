"""Steps over many requests give what the model gives for each by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from sienn_ray.errors import EngineError
from sienn_ray.inference.model.kv_blocks import BlockPool
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_weights import LayerLora, LoraWeights
from sienn_ray.inference.model.runner import BLOCKS_WITHOUT_CACHE, ModelRunner, StepRow
from tests.support.architectures import ARCHITECTURES, random_model
from tests.support.captures import RecordedCapture

#: A model and bytes of its cache to a runner, in the ways of a CPU and in those of a GPU.
Run = Callable[[PreTrainedModel, int], ModelRunner]
PAGED = sorted(ARCHITECTURES.keys() - {"bloom"})
# Of logits whose largest is about one.
TOLERANCE = 2e-5


@pytest.fixture(params=["cpu", "gpu", "gpu with graphs", "gpu with little memory"])
def run(request: pytest.FixtureRequest) -> Run:
    """Makes runners; the ways of a GPU compute on the CPU here."""
    capture = RecordedCapture() if "graphs" in request.param else None
    return lambda model, cache_bytes: ModelRunner(
        model, cache_bytes, 4, LinearChoices(), for_gpu=request.param != "cpu", capture=capture
    )


def prompt(number: int, length: int) -> list[int]:
    return [(7 * index * (number + 2) + number) % 300 for index in range(length)]


def plain(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Logits after the last token, from the model as transformers has it."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return logits.float()


@pytest.mark.parametrize("name", [*PAGED, "bloom"])
def test_prompts_in_pieces_and_decoding_rows_together(name: str, run: Run) -> None:
    model = random_model(name).eval()
    prompts = [prompt(number, length) for number, length in enumerate((3, 11, 8, 17))]
    expected = [[plain(model, tokens + [5] * more) for more in range(3)] for tokens in prompts]
    runner = run(model, 1 << 22)
    assert runner.has_cache == (name != "bloom")
    # Others' blocks lie between, so that requests are in several places.
    blocks = [[number + 4 * index for index in range(6)] for number in range(4)]
    for tokens, own, want in zip(prompts, blocks, expected, strict=True):
        middle = len(tokens) // 2
        runner.step([StepRow(tokens[:middle], 0, own, None, False)], {})
        found = runner.step([StepRow(tokens, middle, own, None, True)], {})
        torch.testing.assert_close(found[0], want[0], atol=TOLERANCE, rtol=1e-4)
    for more in (1, 2):
        rows = [
            StepRow(tokens + [5] * more, len(tokens) + more - 1, own, None, True)
            for tokens, own in zip(prompts, blocks, strict=True)
        ]
        found = runner.step(rows, {})
        for row, want in zip(found, expected, strict=True):
            torch.testing.assert_close(row, want[more], atol=TOLERANCE, rtol=1e-4)


def test_a_prompt_and_decoding_rows_in_one_step(run: Run) -> None:
    model = random_model("llama").eval()
    old, new = prompt(1, 9), prompt(2, 13)
    expected = [plain(model, [*old, 5]), plain(model, new)]
    runner = run(model, 1 << 20)
    runner.step([StepRow(old, 0, [0, 1, 2], None, True)], {})
    rows = [StepRow(new, 0, [5, 6, 7, 8], None, True), StepRow([*old, 5], 9, [0, 1, 2], None, True)]
    found = runner.step(rows, {})
    torch.testing.assert_close(found[1], expected[0], atol=TOLERANCE, rtol=1e-4)
    torch.testing.assert_close(found[0], expected[1], atol=TOLERANCE, rtol=1e-4)


def test_a_shared_beginning_gives_the_same(run: Run) -> None:
    model = random_model("llama").eval()
    tokens = prompt(3, 18)
    other = [*tokens[:12], 1, 2, 3]
    expected = plain(model, other)
    runner = run(model, 1 << 20)
    pool = BlockPool(runner.num_blocks, 4)
    first = pool.take("base", tokens, 20)
    assert first is not None
    runner.step([StepRow(tokens, 0, first.blocks, None, True)], {})
    pool.note(first, tokens)
    pool.take("base", [9], 3)
    second = pool.take("base", other, 20)
    assert second is not None
    assert second.num_shared_tokens == 12
    found = runner.step([StepRow(other, 12, second.blocks, None, True)], {})
    torch.testing.assert_close(found[0], expected, atol=TOLERANCE, rtol=1e-4)


def test_no_logits_where_none_are_wanted(run: Run) -> None:
    runner = run(random_model("llama"), 1 << 20)
    assert runner.step([StepRow([1, 2], 0, [0], None, False)], {}).numel() == 0


def test_cache_is_as_large_as_it_may_be(run: Run) -> None:
    runner = run(random_model("llama"), 100_000)
    runner.step([StepRow([1, 2], 0, [0], None, True)], {})
    block_bytes = 4 * 2 * 2 * 2 * 8 * 4  # tokens, layers, keys and values, key heads, head size, float32
    assert runner.cache_bytes == 100_000 // block_bytes * block_bytes
    # For a GPU, one of the blocks is there to fill up steps.
    assert runner.cache_bytes // block_bytes - runner.num_blocks in {0, 1}


def test_a_gpus_cache_is_there_before_the_first_step() -> None:
    runner = ModelRunner(random_model("llama"), 100_000, 4, LinearChoices(), for_gpu=True)
    before = runner.cache_bytes
    runner.step([StepRow([1, 2], 0, [0], None, True)], {})
    assert runner.cache_bytes == before > 90_000


def test_a_gpu_without_memory_for_its_cache_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    new_zeros: Any = torch.Tensor.new_zeros

    def limited(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if shape[0] > 1_000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        found: torch.Tensor = new_zeros(tensor, shape)
        return found

    monkeypatch.setattr(torch.Tensor, "new_zeros", limited)
    with pytest.raises(EngineError, match=r"no memory for a cache of 4194304 bytes; lower SIENN_ENGINE_KV_CACHE"):
        ModelRunner(random_model("llama"), 1 << 22, 4, LinearChoices(), for_gpu=True)


@pytest.mark.parametrize("most_tokens", [1, 3, 7])
def test_a_step_that_memory_is_too_short_for_is_divided(most_tokens: int, run: Run) -> None:
    model, blocks = random_model("llama").eval(), [[4 * number + index for index in range(4)] for number in range(4)]
    prompts = [prompt(number, length) for number, length in enumerate((4, 9, 6, 3))]
    expected = [plain(model, tokens) for tokens in prompts]
    runner = run(model, 1 << 20)
    starts = [3, 2, 0, 2]
    for tokens, start, own in zip(prompts, starts, blocks, strict=True):
        if start:
            runner.step([StepRow(tokens[:start], 0, own, None, False)], {})
    sizes: list[int] = []

    def limited(_model: Any, _args: Any, given: dict[str, Any]) -> None:
        sizes.append(given["input_ids"].numel())
        if sizes[-1] > most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.register_forward_pre_hook(limited, with_kwargs=True)
    rows = [
        StepRow(tokens, start, own, None, number != 2)
        for number, (tokens, start, own) in enumerate(zip(prompts, starts, blocks, strict=True))
    ]
    found = runner.step(rows, {})
    torch.testing.assert_close(found, torch.stack([expected[n] for n in (0, 1, 3)]), atol=TOLERANCE, rtol=1e-4)
    assert sizes[0] == 15


def test_memory_that_is_too_short_for_one_token_is_an_error(run: Run) -> None:
    model = random_model("llama").eval()
    runner = run(model, 1 << 20)

    def refuse(_model: Any, _args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(refuse)
    with pytest.raises(torch.OutOfMemoryError):
        runner.step([StepRow([1, 2], 0, [0], None, True), StepRow([1], 0, [1], None, True)], {})


def test_blocks_are_few_where_they_hold_nothing(run: Run) -> None:
    runner = run(random_model("bloom"), 1 << 30)
    assert not runner.has_cache
    assert runner.num_blocks == BLOCKS_WITHOUT_CACHE


def test_no_room_for_a_single_block_is_refused(run: Run) -> None:
    with pytest.raises(EngineError, match="SIENN_ENGINE_KV_CACHE_BYTES"):
        run(random_model("llama"), 100)


@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 17, 9, 30), (1, 2, 40)])
def test_decoding_rows_of_other_lengths_beside_each_other(lengths: tuple[int, ...], run: Run) -> None:
    model = random_model("llama").eval()
    prompts = [prompt(number, length) for number, length in enumerate(lengths)]
    expected = [plain(model, [*tokens, 5]) for tokens in prompts]
    runner = run(model, 1 << 22)
    # The last one ends where the cache ends, so that nothing lies behind it.
    blocks = [[12 * number + index for index in range(11)] for number in range(len(prompts))]
    last = -(-(lengths[-1] + 1) // 4)
    blocks[-1] = list(range(runner.num_blocks - last, runner.num_blocks))
    for tokens, own in zip(prompts, blocks, strict=True):
        runner.step([StepRow(tokens, 0, own, None, False)], {})
    rows = [StepRow([*tokens, 5], len(tokens), own, None, True) for tokens, own in zip(prompts, blocks, strict=True)]
    for found, want in zip(runner.step(rows, {}), expected, strict=True):
        torch.testing.assert_close(found, want, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_lies_behind_a_request_in_the_cache_does_not_reach_it(bad: float, run: Run) -> None:
    model = random_model("llama").eval()
    tokens, longer = prompt(1, 9), prompt(2, 25)
    expected = plain(model, [*tokens, 5])
    runner = run(model, 1 << 22)
    layer = next(name for name in runner.lora.layers if name.endswith("v_proj"))
    behind = runner.lora.layers[layer]
    ones = LayerLora(torch.ones((1, behind.shape[1])), torch.full((behind.shape[0], 1), bad))
    diverged = {"diverged": LoraWeights({layer: ones}, 1)}
    runner.step([StepRow(longer, 0, list(range(3, 12)), "diverged", False)], diverged)
    runner.step([StepRow(tokens, 0, [0, 1, 2], None, False)], {})
    runner.step([StepRow(longer, 0, list(range(20, 29)), None, False)], {})
    rows = [
        StepRow([*longer, 5], 25, list(range(20, 29)), None, True),
        StepRow([*tokens, 5], 9, [0, 1, 2], None, True),
    ]
    torch.testing.assert_close(runner.step(rows, {})[1], expected, atol=TOLERANCE, rtol=1e-4)


def test_a_diverged_adapters_own_logits_are_not_numbers(run: Run) -> None:
    runner = run(random_model("llama").eval(), 1 << 22)
    for name in ("q_proj", "k_proj", "v_proj", "down_proj"):
        layer = next(each for each in runner.lora.layers if each.endswith(name))
        shape = runner.lora.layers[layer].shape
        large = LayerLora(torch.full((1, shape[1]), 1e30), torch.full((shape[0], 1), 1e30))
        rows = [StepRow([1, 2, 3], 0, [0], name, True), StepRow([1, 2, 3], 0, [1], None, True)]
        found = runner.step(rows, {name: LoraWeights({layer: large}, 1)})
        assert not found[0].isfinite().all(), name
        assert found[1].isfinite().all()


def test_rows_of_other_lengths_in_half_precision(run: Run) -> None:
    model = random_model("llama").to(torch.bfloat16).eval()
    prompts = [prompt(number, length) for number, length in enumerate((4, 19, 9))]
    expected = [plain(model, [*tokens, 5]) for tokens in prompts]
    runner = run(model, 1 << 22)
    assert runner.has_cache
    blocks = [list(range(8 * number, 8 * number + 8)) for number in range(3)]
    for tokens, own in zip(prompts, blocks, strict=True):
        runner.step([StepRow(tokens, 0, own, None, False)], {})
    rows = [StepRow([*tokens, 5], len(tokens), own, None, True) for tokens, own in zip(prompts, blocks, strict=True)]
    for found, want in zip(runner.step(rows, {}), expected, strict=True):
        torch.testing.assert_close(found, want, atol=0.05, rtol=0.05)
