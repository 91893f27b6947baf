"""The largest tensor that operators make, as a measure of memory that is there for a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the bytes of the largest tensor that is made; views, and what is written in place, aren't."""

    num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and not (func.is_view or func._schema.is_mutable):
            self.num_bytes = max(self.num_bytes, found.nbytes)
        return found
