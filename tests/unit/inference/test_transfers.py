from __future__ import annotations

import pytest
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


@pytest.mark.parametrize("is_packed", [True, False])
def test_tensors_of_several_types_are_fetched(is_packed: bool) -> None:
    tensors = [
        torch.tensor([True, False, True]),  # numbers behind it don't begin at a multiple of their size
        torch.tensor([[1.5, float("nan")], [float("-inf"), -2.25]]),
        torch.tensor([1 << 40, -1]),
        torch.tensor(0.1, dtype=torch.float64),
        torch.empty((0, 3)),
        torch.arange(6, dtype=torch.float16).view(2, 3).t(),
        torch.tensor([7], dtype=torch.int32).expand(4),
        torch.arange(10.0).view(2, 5)[:, 3],
        torch.arange(5.0).view(1, 5)[:, 3],
    ]
    for found, tensor in zip(fetch(tensors, is_packed=is_packed), tensors, strict=True):
        torch.testing.assert_close(torch.tensor(found), tensor, atol=0.0, rtol=0.0, equal_nan=True)


def test_what_is_fetched_packed_stays_as_it_was() -> None:
    tensor = torch.tensor([3, 1])
    (found,) = fetch([tensor], is_packed=True)
    tensor.zero_()
    assert found.tolist() == [3, 1]


def test_nothing_is_fetched_of_no_tensors() -> None:
    assert fetch([]) == []
