from __future__ import annotations

import torch

from sienn_ray.inference.transfers import StepNumbers, fetch

CPU = torch.device("cpu")


def test_lists_come_back_in_their_places() -> None:
    numbers = StepNumbers(CPU)
    places = [numbers.add(each) for each in ([3, 1], [], range(4))]
    numbers.send()
    assert [numbers[place].tolist() for place in places] == [[3, 1], [], [0, 1, 2, 3]]


def test_lists_are_parts_of_one_tensor_that_is_there() -> None:
    numbers = StepNumbers(CPU)
    first, second = numbers.add([3, 1]), numbers.add([7])
    into = torch.zeros(3, dtype=torch.long)
    numbers.send(into)
    assert into.tolist() == [3, 1, 7]
    assert numbers[first].data_ptr() == into.data_ptr()
    assert numbers[second].tolist() == [7]


def test_tensors_of_several_types_are_fetched() -> None:
    tensors = [torch.rand(2, 3), torch.tensor([1 << 40]), torch.tensor([True, False, True])]
    for found, tensor in zip(fetch(tensors), tensors, strict=True):
        assert found.tolist() == tensor.tolist()
