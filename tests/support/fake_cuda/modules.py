"""Moves of a module's parameters; PyTorch swaps fakes instead, and fails where modules share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from tests.support.fake_cuda.device import is_fake

Convert = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def plain_moves() -> Iterator[None]:
    """Have `Module.to` change fakes in place, and put one fake for each parameter that comes to the device."""
    original = torch.nn.Module._apply
    moved: dict[int, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}  # with the one that was moved, to keep its id

    def put(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter, found: torch.Tensor) -> None:
        if not is_fake(parameter):
            if id(parameter) not in moved:
                moved[id(parameter)] = (parameter, torch.nn.Parameter(found, parameter.requires_grad))
            module._parameters[name] = moved[id(parameter)][1]
        elif found.dtype != parameter.dtype:
            parameter.data = found

    def apply(module: torch.nn.Module, convert: Convert, recurse: bool = True) -> Any:
        parameters = {name: each for name, each in module._parameters.items() if each is not None}
        with torch.no_grad():
            converted = {
                name: moved[id(each)][1] if id(each) in moved else convert(each) for name, each in parameters.items()
            }
        if not any(is_fake(each) for each in converted.values()):
            return original(module, convert, recurse)  # type: ignore[no-untyped-call]
        for child in module.children() if recurse else ():
            child._apply(convert)  # type: ignore[no-untyped-call]
        for name, parameter in parameters.items():
            put(module, name, parameter, converted[name])
        with torch.no_grad():
            module._buffers = {name: each if each is None else convert(each) for name, each in module._buffers.items()}
        return module

    with patch.object(torch.nn.Module, "_apply", apply):
        yield
