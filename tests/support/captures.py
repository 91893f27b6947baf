"""Stand-ins for CUDA graphs on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


class RecordedCapture:
    """Records the operators of one run with the tensors that they got, and replays exactly these, as a graph does.

    No Python runs again at a replay: what it decided is frozen, and tensors are those that were there. So a graph that
    is stale gives what it gives on a GPU.
    """

    def __init__(self) -> None:
        self.num_captures = 0
        self.num_replays = 0

    def __call__(self, work: Callable[[], object]) -> Callable[[], None]:
        """Record the work; see `Capture`."""
        self.num_captures += 1
        recorder = _Recorder()
        with recorder:
            work()

        def replay() -> None:
            self.num_replays += 1
            with torch.inference_mode():
                for call in recorder.calls:
                    call.replay()

        return replay


@dataclass(frozen=True)
class _Call:
    operator: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[torch.Tensor]  # memory of their own, which later calls read

    def replay(self) -> None:
        found = self.operator(*self.args, **self.kwargs)
        if self.outputs:
            for output, again in zip(self.outputs, _tensors(found), strict=True):
                output.copy_(again)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        with self:  # without gradients, what is composed of operators comes here as a whole
            composed = func.decompose(*args, **kwargs)
        if composed is not NotImplemented:
            return composed
        # Callers may change a tensor's shape in place; what it was at the call is kept.
        kept_args, kept_kwargs = tree_map_only(torch.Tensor, torch.Tensor.detach, (tuple(args), kwargs))
        result = func(*args, **kwargs)
        is_fresh = all(info.alias_info is None for info in func._schema.returns)
        if is_fresh or func._schema.is_mutable:  # else it is a view, which stays one
            self.calls.append(_Call(func, kept_args, kept_kwargs, _tensors(result) if is_fresh else ()))
        return result


# A number of the device that the host wants, or sizes that depend on one.
_READS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
)


def _tensors(result: object) -> list[torch.Tensor]:
    return [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]


def no_capture(work: Callable[[], object]) -> Callable[[], None]:
    """Record nothing; a replay is the work itself, for tensors without values, which nothing is computed of."""

    def replay() -> None:
        work()

    return replay
