"""What a run asked of the device."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

# `blocking` waits for all that is queued; `pageable` was to be non-blocking, but its memory isn't pinned, so the host
# copies it aside first; `pinned` lets the host go on.
UploadKind = Literal["blocking", "pageable", "pinned"]


@dataclass
class Counts:
    """Launches, copies and waits so far.

    Args:
        launches: Kernels by the operator that launches them, `aten.mm` for one.
        views: Operators that launch nothing and only describe memory anew: they cost the host alone.
        syncs: Waits of the host for results, by what they are read with: `item`, `copy`, `nonzero`, `event`, ...
        uploads: Copies from host to device.
        upload_bytes: Bytes of these.
        download_bytes: Bytes read from the device.
    """

    launches: Counter[str] = field(default_factory=Counter)
    views: int = 0
    syncs: Counter[str] = field(default_factory=Counter)
    uploads: Counter[UploadKind] = field(default_factory=Counter)
    upload_bytes: int = 0
    download_bytes: int = 0

    @property
    def num_launches(self) -> int:
        """Kernels."""
        return self.launches.total()

    @property
    def num_syncs(self) -> int:
        """Waits of the host for results; blocking uploads wait as well and are counted apart."""
        return self.syncs.total()

    @property
    def num_waits(self) -> int:
        """Times that the host can't run ahead: waits for results, and uploads that block."""
        return self.num_syncs + self.uploads["blocking"]

    def clear(self) -> None:
        """Count from zero again, such as behind what prepares a run."""
        self.__init__()  # type: ignore[misc]
