"""The process that runs checks and tells its parent what they give; the parent ends it where one takes too long."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from checks import Check, Figure, NotThere, Place


def run_checks(checks: Sequence[Check], place: Place, pipe: int, end_at: float) -> None:
    """Run checks in order, each by itself: an error in one is told, and the next one begins.

    Args:
        checks: In order.
        place: Where they run.
        pipe: File descriptor that takes a JSON object a line.
        end_at: Unix time after which none begins.
    """
    with os.fdopen(pipe, "w") as out:

        def tell(**event: Any) -> None:
            out.write(json.dumps(event) + "\n")
            out.flush()

        for check in checks:
            if time.time() > end_at:
                tell(event="not reached", check=check.name, text="the time for all checks was over before it began")
                tell(event="end", check=check.name, seconds=0.0)
                continue
            tell(event="begin", check=check.name)
            began = time.monotonic()
            is_broken = _run(check, place, tell)
            tell(event="facts", facts=place.facts)
            tell(event="end", check=check.name, seconds=time.monotonic() - began)
            if is_broken or check.ends_process:  # the parent starts another one
                os._exit(0)


def _run(check: Check, place: Place, tell: Any) -> bool:
    """Run one check; return whether the device can't be used any more."""
    print(f"--- {check.name}", flush=True)
    try:
        for found in check.run(place):
            if isinstance(found, Figure):
                tell(event="figure", check=check.name, figure=asdict(found))
            else:
                _tell_error(found, check, tell)
    except BaseException as error:
        _tell_error(error, check, tell)
        return _is_device_fault(error)
    finally:
        _free_memory()
    return False


def _tell_error(error: BaseException, check: Check, tell: Any) -> None:
    if isinstance(error, NotThere):
        tell(event="not there", check=check.name, text=str(error))
        return
    traceback.print_exception(error)
    first = str(error).strip().splitlines() or [""]
    tell(event="error", check=check.name, text=f"{type(error).__name__}: {first[0]}")


def _is_device_fault(error: BaseException) -> bool:
    """Return whether the process can't compute on its device any more."""
    if "torch" not in sys.modules:
        return False
    from sienn_ray.inference.batching.device_faults import is_device_fault

    return is_device_fault(error)


def _free_memory() -> None:
    """Give a check's tensors back before the next one measures."""
    gc.collect()
    if "torch" not in sys.modules:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def place_of(options: Any) -> Place:
    """The place that the command line names."""
    return Place("cpu" if options.rehearse else "cuda", bool(options.rehearse), Path(options.scratch))
