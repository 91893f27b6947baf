"""The fake device: operators on it are done by fakes, counted, and answered where only values could answer."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.fake_cuda.counts import Counts, UploadKind
from tests.support.fake_cuda.kernels import is_view, name_of, num_kernels

CUDA = torch.device("cuda", 0)
_META = torch.device("meta")
_aten = torch.ops.aten
_IN_PLACE_DRAWS = (_aten.uniform_, _aten.normal_, _aten.exponential_, _aten.random_, _aten.bernoulli_)


class _Fakes(FakeTensorMode):  # type: ignore[no-untyped-call]
    """Fake tensors, made without ever looking for a device, whatever `torch.cuda` says of one."""

    avoid_device_init = True


class Memory:
    """What the threads of a run share: the fakes, made by one of them at a time, and pinned memory.

    Args:
        counts: Where it is counted.
        number: What numbers read from the device are.
        boolean: What truth values read from the device are.
    """

    def __init__(self, counts: Counts, number: float, boolean: bool) -> None:
        self.counts = counts
        self._fakes = _Fakes(allow_non_fake_inputs=True)
        self._lock = threading.RLock()
        self._number = number
        self._boolean = boolean
        self._pinned: dict[int, torch.UntypedStorage] = {}  # by address, which nothing else can have then

    @contextmanager
    def faking(self) -> Iterator[None]:
        """Have operators done by fakes."""
        with self._lock, self._fakes:
            yield

    def value(self, dtype: torch.dtype) -> float | bool:
        """Return what is read from the device."""
        if dtype is torch.bool:
            return self._boolean
        return self._number if dtype.is_floating_point or math.isfinite(self._number) else 0.0

    def read(self, tensor: torch.Tensor, means: str, *, is_async: bool = False) -> torch.Tensor:
        """Copy a fake to the host: a real tensor of the given values."""
        if not is_async:
            self.counts.syncs[means] += 1
        self.counts.download_bytes += tensor.nbytes
        return torch.full(tuple(tensor.shape), self.value(tensor.dtype), dtype=tensor.dtype, device="cpu")

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take a tensor on the host to be in pinned memory."""
        storage = tensor.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor on the host is in pinned memory."""
        return tensor.untyped_storage().data_ptr() in self._pinned


def is_fake(value: Any) -> bool:
    """Return whether something is a tensor on the fake device."""
    return isinstance(value, FakeTensor) and value.fake_device.type == "cuda"


class Device(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Has operators on the device done by fakes, counts them, and answers what has no answer without values."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = memory
        self._counts = memory.counts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        packet = func.overloadpacket
        if packet is _aten.is_pinned:
            return self._memory.is_pinned(args[0])
        if packet in (_aten._pin_memory, _aten.pin_memory):  # the latter in inference mode
            return self._memory.pin(args[0].clone())
        device = named.get("device")
        if device is not None and device.type in ("cuda", "meta"):
            named["device"] = CUDA  # the C++ side gives what it believes a fake's device to be
        elif not any(is_fake(leaf) for leaf in tree_leaves((args, named))):
            return func(*args, **named)
        if func is torch.ops.prim.device.default:
            return _META
        with self:  # in inference mode, composed operators get here whole
            parts = func.decompose(*args, **named)
        if parts is not NotImplemented:
            return parts
        if packet in (_aten._to_copy, _aten.copy_):
            return self._copied(func, args, named)
        if packet is _aten._local_scalar_dense:
            return self._memory.read(args[0], "item").item()
        if packet is _aten.equal:
            self._memory.read(args[0].new_empty((), dtype=torch.bool), "equal")
            return self._memory.value(torch.bool)
        if packet in _IN_PLACE_DRAWS:
            self._count(func, args)
            return args[0]
        return self._computed(func, args, named)

    def _computed(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        packet = func.overloadpacket
        if packet in (_aten.index, _aten.index_put, _aten.index_put_) and not _is_masked_fill(packet, args):
            args = [args[0], self._numbers(args[1]), *args[2:]]
        elif packet is _aten.nonzero:
            return self._nonzero(args[0])
        elif packet is _aten.masked_select:
            return self._nonzero(args[1])[:, 0].to(args[0].dtype)
        with self._memory.faking():
            result = func(*args, **kwargs)
        self._count(func, args)
        return result

    def _count(self, func: Any, args: Sequence[Any]) -> None:
        if is_view(func):
            self._counts.views += 1
        elif launches := num_kernels(func, args):
            self._counts.launches[name_of(func)] += launches

    def _copied(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
        """Copy within the device, to it or from it; `copy_` has the target in front."""
        is_in_place = func.overloadpacket is _aten.copy_
        source = args[1] if is_in_place else args[0]
        device = kwargs.get("device")
        is_to_device = is_fake(args[0]) if is_in_place else is_fake(source) if device is None else device.type == "cuda"
        is_async = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        if not is_to_device:
            found = self._memory.read(source, "copy", is_async=is_async).to(kwargs.get("dtype") or source.dtype)
            target: torch.Tensor = args[0].copy_(found) if is_in_place else found
            return target
        if not is_in_place and is_fake(source) and _has_nothing_to_do(source, kwargs):
            alias: torch.Tensor = _aten.alias(source)  # the C++ side doesn't know where it is
            return alias
        with self._memory.faking():
            result: torch.Tensor = func(*args, **kwargs)
        if is_fake(source):
            self._counts.launches[name_of(func)] += 1
        else:
            self._upload(source, is_async=is_async)
        return result

    def _upload(self, source: torch.Tensor, *, is_async: bool) -> None:
        kind: UploadKind = "blocking"
        if is_async:
            kind = "pinned" if self._memory.is_pinned(source) else "pageable"
        self._counts.uploads[kind] += 1
        self._counts.upload_bytes += source.nbytes

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        self._upload(tensor, is_async=False)
        with self._memory.faking():
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)

    def _nonzero(self, mask: torch.Tensor) -> torch.Tensor:
        """Take all entries to be set; the host has to know how many are."""
        self._memory.read(mask.new_empty((), dtype=torch.long), "nonzero")
        self._count(_aten.nonzero.default, ())
        return mask.new_empty((mask.numel(), mask.ndim), dtype=torch.long)

    def _numbers(self, indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Replace masks by the numbers of their entries, and bring indices to the device."""
        found: list[torch.Tensor | None] = []
        for index in indices:
            own = index if index is None or is_fake(index) else self._moved(index)
            found += [own] if own is None or own.dtype is not torch.bool else self._nonzero(own).unbind(1)
        return found


def _is_masked_fill(packet: Any, args: Sequence[Any]) -> bool:
    """Return whether an assignment through one mask has one value, which needs no numbers of entries."""
    if packet is _aten.index or len(args[1]) != 1 or args[1][0] is None:
        return False
    return args[1][0].dtype is torch.bool and args[2].numel() == 1


def _has_nothing_to_do(source: torch.Tensor, kwargs: Mapping[str, Any]) -> bool:
    return kwargs.get("device") is not None and kwargs.get("dtype") in (None, source.dtype)
