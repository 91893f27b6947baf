"""The Ray cluster beneath the API, as a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sienn_ray.api.schemas.health import EngineStateName


@dataclass(frozen=True)
class Nodes:
    """The nodes that are alive, and what they have together."""

    num_nodes: int
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class EngineState:
    """The engine of one base model; `message` says why it failed."""

    base_model: str
    state: EngineStateName
    num_replicas: int
    message: str | None = None


class Cluster(Protocol):
    """The cluster. Every method blocks, and may do so for ever while Ray is in trouble."""

    def ask_gcs(self) -> None:
        """Ask Ray's global control service something small; raises if it can't be asked."""
        ...

    def nodes(self) -> Nodes:
        """The nodes that are alive."""
        ...

    def engines(self) -> list[EngineState]:
        """The engines that have been asked for so far."""
        ...
