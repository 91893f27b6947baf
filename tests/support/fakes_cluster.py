"""A Ray cluster in memory, whose answers can fail or hang."""

from __future__ import annotations

import threading
from collections import Counter

from sienn_ray.api.cluster import EngineState, Nodes


class FakeCluster:
    """Answers at once.

    Attributes:
        errors: What a method raises, by its name.
        hanging: Names of methods that don't answer until `release` is set.
        release: Ends all hanging.
        num_asked: Calls by method.
    """

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.release = threading.Event()
        self.num_asked: Counter[str] = Counter()
        self.states: list[EngineState] = []

    def _answer(self, method: str) -> None:
        self.num_asked[method] += 1
        if method in self.hanging:
            self.release.wait(60)
        if method in self.errors:
            raise self.errors[method]

    def ask_gcs(self) -> None:
        self._answer("ask_gcs")

    def nodes(self) -> Nodes:
        self._answer("nodes")
        return Nodes(num_nodes=2, num_cpus=16.0, num_gpus=1.0)

    def engines(self) -> list[EngineState]:
        self._answer("engines")
        return self.states
