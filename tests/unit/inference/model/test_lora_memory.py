"""Adapters that the device has no memory for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sienn_ray.errors import AdapterMemoryError
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_stack import LoraStack
from sienn_ray.inference.model.lora_weights import LayerLora, LoraWeights
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from tests.support.architectures import random_model


def adapter(runner: ModelRunner, seed: int, r: int = 4) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LayerLora(
            torch.randn((r, layer.shape[1]), generator=generator), torch.randn((layer.shape[0], r), generator=generator)
        )
        for name, layer in runner.lora.layers.items()
    }
    return runner.lora.readied(LoraWeights(layers, r))


def row(number: int, adapter_name: str) -> StepRow:
    return StepRow([5, 7, 9 + number], 0, [number], adapter_name, True)


class Memory:
    """Room for the places of so many adapters; allocations of more fail, from the third tensor on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_places: int) -> None:
        self.num_failures = 0
        num_large = 0
        new_zeros: Any = torch.Tensor.new_zeros

        def limited(tensor: torch.Tensor, shape: tuple[int, ...], **options: Any) -> torch.Tensor:
            nonlocal num_large
            num_large += len(shape) == 3 and shape[0] > num_places
            if num_large > 2 or (num_large and shape[2] > 100):
                self.num_failures += 1
                num_large = 0
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            found: torch.Tensor = new_zeros(tensor, shape, **options)
            return found

        monkeypatch.setattr(torch.Tensor, "new_zeros", limited)


@pytest.mark.parametrize("for_gpu", [False, True])
def test_those_that_came_last_are_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, for_gpu: bool) -> None:
    runner = ModelRunner(random_model("llama"), 1 << 20, 4, LinearChoices(), for_gpu=for_gpu)
    adapters = {name: adapter(runner, number) for number, name in enumerate("abc")}
    rows = [row(number, name) for number, name in enumerate("abc")]
    expected = runner.step(rows[:2], adapters)
    memory = Memory(monkeypatch, num_places=2)
    with pytest.raises(AdapterMemoryError, match="no memory for 3 adapters of r=8 in one batch") as caught:
        runner.step(rows, adapters)
    assert caught.value.names == ("c",)
    assert memory.num_failures == 1
    assert torch.equal(runner.step(rows[:2], adapters), expected)


class TestLimit:
    """Places of unlike ranks in little memory: each place is as large as the largest adapter beside it."""

    def runner(self, num_places: int, r: int) -> ModelRunner:
        columns = sum(sum(layer.shape) for layer in LoraStack(random_model("llama")).layers.values())
        limit = num_places * r * columns * 4
        return ModelRunner(random_model("llama"), 1 << 20, 4, LinearChoices(), for_gpu=True, adapter_bytes=limit)

    def test_small_ones_have_the_room_of_a_large_one_once_it_is_gone(self) -> None:
        runner = self.runner(3, 64)
        adapters = {str(number): adapter(runner, number, 8) for number in range(17)} | {
            "large": adapter(runner, 99, 64)
        }
        rows = {name: row(number, name) for number, name in enumerate(adapters)}
        expected = {name: runner.step([each], adapters)[0] for name, each in rows.items()}
        for names in (["large", "0", "1"], [str(number) for number in range(17)], ["2", "large"]):
            found = runner.step([rows[name] for name in names], adapters)
            torch.testing.assert_close(found, torch.stack([expected[name] for name in names]), atol=2e-4, rtol=1e-4)

    def test_who_has_room_beside_each_other(self) -> None:
        runner = self.runner(3, 64)
        assert runner.lora.has_room([64, 8, 8])
        assert not runner.lora.has_room([64, 8, 8, 8])
        assert runner.lora.has_room([8] * 24)
        assert not runner.lora.has_room([8] * 25)
        assert runner.lora.has_room([512])

    def test_those_that_have_none_are_named_and_the_others_keep_their_places(self) -> None:
        runner = self.runner(2, 8)
        adapters = {name: adapter(runner, number) for number, name in enumerate("abc")}
        rows = [row(number, name) for number, name in enumerate("abc")]
        runner.step(rows[:2], adapters)
        version = runner.lora.version
        with pytest.raises(AdapterMemoryError) as caught:
            runner.step(rows, adapters)
        assert caught.value.names == ("c",)
        runner.step(rows[:2], adapters)
        assert runner.lora.version == version


@pytest.mark.parametrize("r", [1, 8, 13])
def test_an_adapter_that_goes_to_a_gpu_is_counted_there_too(r: int) -> None:
    runner = ModelRunner(random_model("llama"), 1 << 20, 4, LinearChoices(), for_gpu=True)
    columns = sum(sum(layer.shape) for layer in runner.lora.layers.values())
    rounded = -(-r // 8) * 8
    assert adapter(runner, 0, r).size_bytes == 2 * rounded * columns * 4
