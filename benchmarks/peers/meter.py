"""What a training run costs: seconds, the tokens that went through the model in them, and memory."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mark:
    """A moment of a run; `cpu_s` adds up all threads."""

    wall_s: float
    cpu_s: float
    num_tokens: int


@dataclass
class Meter:
    """Counts each batch as the trainer computes its loss.

    The clock starts after the first step, which warms caches up, and its tokens don't count. A run of a single step is
    timed as a whole.
    """

    num_tokens: int = 0
    num_completion_tokens: int = 0
    num_computed_positions: int = 0
    num_steps: int = 0
    _marks: list[Mark] = field(default_factory=list)

    def count(self, batch: dict[str, Any]) -> None:
        """Count a batch: without an attention mask, all of it is tokens."""
        input_ids, mask = batch["input_ids"], batch.get("attention_mask")
        self.num_computed_positions += input_ids.numel()
        self.num_tokens += input_ids.numel() if mask is None else int(mask.sum())
        self.num_completion_tokens += int((batch["labels"][:, 1:] != -100).sum())

    def mark(self) -> None:
        """Note the time and the tokens up to here."""
        self._marks.append(Mark(time.perf_counter(), time.process_time(), self.num_tokens))

    @property
    def timed(self) -> Mark:
        """Seconds, CPU seconds and tokens after the warm-up."""
        start, end = self._marks[1 if self.num_steps > 1 else 0], self._marks[-1]
        return Mark(end.wall_s - start.wall_s, end.cpu_s - start.cpu_s, end.num_tokens - start.num_tokens)


def memory_mib(name: str) -> float:
    """`VmRSS` (resident now) or `VmHWM` (at most so far) of this process, from Linux's /proc."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {name}: the peers are measured on Linux")
    return int(found[1]) / 1024
