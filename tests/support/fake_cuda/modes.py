"""Fake CUDA tensors on a build of PyTorch without CUDA, and the modes that watch what becomes of them.

A fake tensor has shape, data type and device, and no values (`torch._subclasses.fake_tensor`). To Python it says that
it is on `cuda:0`; to the C++ side, whose engine of automatic differentiation would look for CUDA's streams, it says
`meta`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils

from tests.support.fake_cuda.attention import attention
from tests.support.fake_cuda.autocast import Autocast
from tests.support.fake_cuda.counts import Counts
from tests.support.fake_cuda.device import CUDA, Device, Memory, is_fake
from tests.support.fake_cuda.modules import plain_moves
from tests.support.fake_cuda.runtime import runtime

_IS_CUDA = torch._C.TensorBase.__dict__["is_cuda"].__get__


@contextmanager
def fake_cuda(*, number: float = 0.0, boolean: bool = False) -> Iterator[Counts]:
    """Have tensors on `cuda` be fakes meanwhile, and count what is asked of the device.

    Tensors on the CPU are real ones. A copy to `cuda` gives a fake, and what is read from a fake has the given values.
    Tensors of both in one operator raise `FakeTensorDeviceMismatchError`. The calling thread and those that it starts
    meanwhile know the device.

    Args:
        number: What numbers read from the device are.
        boolean: What truth values read from the device are.

    Example:
        >>> with fake_cuda() as counts:
        ...     product = torch.empty(2, 3, device=CUDA) @ torch.empty(3, 4, device="cuda")
        ...     loss = float(product.sum())
        >>> counts.num_launches, counts.num_syncs, tuple(product.shape)
        (2, 1, (2, 4))
    """
    counts = Counts()
    memory = Memory(counts, number, boolean)
    before = torch._C._only_lift_cpu_tensors()
    # `torch.tensor(..., device="cuda")` hands its copy to the modes then.
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _plain_methods(memory), plain_moves(), runtime(counts), _watching(memory):
            yield counts
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@contextmanager
def _watching(memory: Memory) -> Iterator[None]:
    """Watch the calling thread, and each that is started meanwhile: modes are a thread's own."""
    run = threading.Thread.run

    def watched_run(thread: threading.Thread) -> None:
        with torch.autograd.set_multithreading_enabled(False), Device(memory), _Python(memory):
            run(thread)

    with (
        patch.object(threading.Thread, "run", watched_run),
        torch.autograd.set_multithreading_enabled(False),
        Device(memory),
        _Python(memory),
    ):
        yield


@contextmanager
def _plain_methods(memory: Memory) -> Iterator[None]:
    """Have fakes taken for plain tensors where code looks at the class, as PyTorch's optimizers do."""
    kinds = [torch.Tensor, torch.nn.Parameter, FakeTensor]
    devices = [*_foreach_utils._get_foreach_kernels_supported_devices(), "meta"]  # by which the C++ side groups them
    with (
        patch.object(_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: devices),
        patch.object(FakeTensor, "tolist", lambda tensor: memory.read(tensor, "tolist").tolist()),
        patch.object(_foreach_utils, "_foreach_supported_types", kinds),
        patch.object(import_module("torch.optim.optimizer"), "_foreach_supported_types", kinds),
    ):
        yield


class _Python(TorchFunctionMode):
    """Answers what Python asks before it gets to the dispatcher."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory
        self._autocast = Autocast(is_fake)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = {name: _with_index(value) for name, value in (kwargs or {}).items()}
        args = [_with_index(value) for value in args]
        is_pinned = bool(named.pop("pin_memory", False))
        first: Any = args[0] if args else None
        if func is torch.Tensor.cuda:
            return first.to(CUDA, non_blocking=named.get("non_blocking", False))
        if not is_fake(first):
            result = func(*args, **named)
            return self._memory.pin(result) if is_pinned else result
        if func == _IS_CUDA:
            return True
        if func is torch.Tensor.numpy:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
        if func is F.scaled_dot_product_attention:
            return attention(*args, **named)
        return func(*self._autocast.cast(func, args), **named)


def _with_index(value: Any) -> Any:
    """Name the device, since a build without CUDA has no current one."""
    if isinstance(value, str | torch.device) and str(value) == "cuda":
        return CUDA
    return value
