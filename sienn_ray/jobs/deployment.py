"""A deployment of the service, and how a tracker that runs stands to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sienn_ray.code_version import code_version
from sienn_ray.settings import Settings


class Standing(StrEnum):
    """The standing of a tracker towards a deployment whose replica starts."""

    SAME = "same"
    """It has these settings and this code."""
    OTHER = "other"
    """It has others, of an earlier deployment, and is to be replaced."""
    NEWER = "newer"
    """It has others, of a later deployment, and stays."""


@dataclass(frozen=True)
class Deployment:
    """The settings and the code of a replica. Of two deployments the later one's tracker stays.

    Args:
        settings: The settings.
        deployed_at: When it was asked for, in seconds since the epoch; the same for all its replicas.
        version: Of the code, see `code_version`.
    """

    settings: Settings
    deployed_at: float = 0.0
    version: str = field(default_factory=code_version)

    def standing_for(self, other: Deployment) -> Standing:
        """Return how a tracker of this deployment stands to another one."""
        if (self.version, self.settings) == (other.version, other.settings):
            return Standing.SAME
        return Standing.NEWER if self.deployed_at > other.deployed_at else Standing.OTHER
