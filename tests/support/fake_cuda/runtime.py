"""Stand-ins for the functions of `torch.cuda`, as an H100's would answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch

from tests.support.fake_cuda.counts import Counts

MEMORY_BYTES = 80 * 1024**3
CAPABILITY = (9, 0)


@contextmanager
def runtime(counts: Counts) -> Iterator[None]:
    """Have `torch.cuda` answer without a device meanwhile."""

    class Event:
        """A point in a stream; waiting for it is a sync of the host."""

        def __init__(self, **_: Any) -> None:
            pass

        def record(self, stream: Any = None) -> None:
            pass

        def wait(self, stream: Any = None) -> None:
            pass

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            counts.syncs["event"] += 1

    class Stream:
        """A queue of work on the device; all that is queued is taken for done in order."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def wait_stream(self, stream: Any) -> None:
            pass

        def wait_event(self, event: Any) -> None:
            pass

        def record_event(self, event: Any = None) -> Event:
            return event or Event()

        def synchronize(self) -> None:
            counts.syncs["stream"] += 1

    def synchronize(device: Any = None) -> None:
        counts.syncs["device"] += 1

    stream = Stream()
    with patch.multiple(
        torch.cuda,
        is_available=lambda: True,
        is_initialized=lambda: True,
        is_bf16_supported=lambda including_emulation=True: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        set_device=lambda device: None,
        get_device_name=lambda device=None: "NVIDIA H100 (fake)",
        get_device_capability=lambda device=None: CAPABILITY,
        mem_get_info=lambda device=None: (MEMORY_BYTES, MEMORY_BYTES),
        memory_reserved=lambda device=None: 0,
        memory_allocated=lambda device=None: 0,
        max_memory_allocated=lambda device=None: 0,
        reset_peak_memory_stats=lambda device=None: None,
        empty_cache=lambda: None,
        get_rng_state=lambda device="cuda": torch.empty(16, dtype=torch.uint8),
        synchronize=synchronize,
        current_stream=lambda device=None: stream,
        default_stream=lambda device=None: stream,
        stream=lambda _: nullcontext(),
        Event=Event,
        Stream=Stream,
    ):
        yield
