"""Decoding steps captured as CUDA graphs: the launches of a step are recorded once, and replayed in one call.

A graph has fixed shapes and addresses. So a step is filled up to powers of two, of requests and of blocks, and its
numbers are copied into a buffer of the graph's own.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sienn_ray.inference.transfers import StepNumbers

logger = logging.getLogger(__name__)

# A graph of an 8-billion model takes some MiB; steps of a service have a few dozen sizes.
_MAX_GRAPHS = 64
# Rows of logits that are there from the first graph on, since graphs write to an address.
_LOGIT_ROWS = 32


class Capture(Protocol):
    """Records the work of a function on the device."""

    def __call__(self, work: Callable[[], object]) -> Callable[[], None]:
        """Return a function that does the same work again, on the same memory."""
        ...


class CudaCapture:
    """Records CUDA graphs, which share one pool of memory since none runs beside another."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def __call__(self, work: Callable[[], object]) -> Callable[[], None]:
        """See `Capture`."""
        own = torch.cuda.current_stream()
        stream = self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(own)
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.set_stream(stream)
            work()  # libraries allocate their work spaces at a stream's first call
            # Threads that read adapters allocate meanwhile, which is nobody else's matter.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                work()
        finally:
            # Where a capture fails, `torch.cuda.graph` leaves its own stream to the thread.
            torch.cuda.set_stream(own)
            own.wait_stream(stream)
        self._pool = graph.pool()
        replay: Callable[[], None] = graph.replay
        return replay


@dataclass(frozen=True)
class GraphKey:
    """The shapes of a step.

    Args:
        num_rows: Requests, filled up.
        classes: Requests and blocks of each class, likewise.
        adapters: Places of adapters and rows of each; None is a step without adapters.
        version: `LoraStack.version` for steps with adapters, else 0.
    """

    num_rows: int
    classes: tuple[tuple[int, int], ...]
    adapters: tuple[int, int] | None
    version: int


@dataclass(frozen=True)
class _Graph:
    numbers: torch.Tensor
    replay: Callable[[], None]


class DecodeGraphs:
    """The captured steps, the least recently used ones given up.

    Args:
        capture: Records a step.
        device: Where steps compute.
        max_graphs: Graphs to keep.
    """

    def __init__(self, capture: Capture, device: torch.device, max_graphs: int = _MAX_GRAPHS) -> None:
        self._capture = capture
        self._device = device
        self._max_graphs = max_graphs
        self._graphs: OrderedDict[GraphKey, _Graph] = OrderedDict()
        self._given_up: set[GraphKey] = set()
        self._logits: torch.Tensor | None = None
        #: Whether the model can't be captured.
        self.is_off = False
        self.num_captures = 0
        self.num_replays = 0

    def __len__(self) -> int:
        return len(self._graphs)

    def compute(self, key: GraphKey, numbers: StepNumbers, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Compute a step: replayed where its shapes are known, else as it is, and captured for the next one.

        Args:
            key: Its shapes.
            numbers: What it reads; not sent yet.
            forward: Computes it from these, (rows, vocabulary).

        Returns:
            Logits, which the next step overwrites.
        """
        graph = self._graphs.get(key)
        if graph is not None and self._logits is not None:
            self._graphs.move_to_end(key)
            numbers.send(graph.numbers)
            graph.replay()
            self.num_replays += 1
            return self._logits[: key.num_rows]
        static = torch.zeros(sum(numbers.lengths), dtype=torch.long, device=self._device)
        numbers.send(static)
        logits = forward()
        if key not in self._given_up:
            self._try_to_keep(key, static, logits, forward)
        return logits

    def _try_to_keep(
        self, key: GraphKey, static: torch.Tensor, logits: torch.Tensor, forward: Callable[[], torch.Tensor]
    ) -> None:
        self._forget_outdated(key)
        try:
            self._keep(key, static, logits, forward)
        except torch.OutOfMemoryError as error:  # other sizes may need less
            logger.warning("decoding steps of %s aren't captured as CUDA graphs: %s", key, error)
            self._given_up.add(key)
        except Exception as error:  # whatever a model does that a graph can't have
            logger.warning("decoding steps aren't captured as CUDA graphs: %s: %s", type(error).__name__, error)
            self._graphs.clear()
            self.is_off = True

    def _keep(
        self, key: GraphKey, static: torch.Tensor, logits: torch.Tensor, forward: Callable[[], torch.Tensor]
    ) -> None:
        if self._logits is None or len(self._logits) < key.num_rows:
            self._graphs.clear()  # they write to the old one
            self._logits = logits.new_empty((max(key.num_rows, _LOGIT_ROWS), logits.shape[1]))
        kept = self._logits[: key.num_rows]
        self._graphs[key] = _Graph(static, self._capture(lambda: kept.copy_(forward())))
        self.num_captures += 1
        while len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)

    def _forget_outdated(self, key: GraphKey) -> None:
        """Give up graphs that read places of adapters that aren't there any more."""
        if key.version:
            for other in [other for other in self._graphs if other.version not in (0, key.version)]:
                del self._graphs[other]
            self._given_up = {other for other in self._given_up if other.version in (0, key.version)}
