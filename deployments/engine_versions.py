"""Versions of engine applications: what their replicas were started with, to be read without asking a replica."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray import serve
from ray.serve import Application

from deployments.engine_failures import VllmPause
from sienn_ray.code_version import code_version, digest_of_sources
from sienn_ray.settings import Settings

_RELEVANT_PREFIXES = ("engine", "adapter_")
_RELEVANT = frozenset(
    {
        "home",
        "storage_url",
        "generation_timeout_s",
        "stream_interval_s",
        "hub_timeout_s",
        "outage_patience_s",
        "metrics_flush_s",
    }
)
_DIGEST_CHARS = 16
_NO_REVISION = "any"
_NAME = re.compile(
    r"(?P<kind>Version|Listed)-(?P<digest>[0-9a-f]+)-(?P<built_at>\d+)-(?P<revision>[0-9a-f]{40}|any)"
    r"(?:-(?P<wait_s>\d+)-(?P<since_s>\d+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class EngineVersion:
    """The version of an engine's application.

    Args:
        digest: Hash of the code's version and of the settings that an engine reads.
        built_at: When the service that deployed it was deployed itself, in milliseconds of Unix time: the later one of
            two services that run for a while, as in a rolling update, decides.
        is_listed: Whether `serveconfig.yaml` lists it, with settings of its own.
        revision: The whole commit of its base model, or None.
        pause: The last time for which vLLM wasn't tried, or None.
    """

    digest: str
    built_at: int
    is_listed: bool = False
    revision: str | None = None
    pause: VllmPause | None = None

    @property
    def name(self) -> str:
        """Name of the deployment that tells it."""
        kind = "Listed" if self.is_listed else "Version"
        commit = self.revision if self.revision and _COMMIT.fullmatch(self.revision) else _NO_REVISION
        pause = "" if self.pause is None else f"-{self.pause.wait_s}-{self.pause.since_s}"
        return f"{kind}-{self.digest}-{self.built_at}-{commit}{pause}"

    def replaces(self, other: EngineVersion | None) -> bool:
        """Return whether an engine of another version is to be rolled to this one."""
        if other is None:
            return True  # of before versions were told
        return not other.is_listed and other.digest != self.digest and other.built_at < self.built_at


def is_relevant(setting: str) -> bool:
    """Return whether an engine with another value of a setting is another version."""
    return setting.startswith(_RELEVANT_PREFIXES) or setting in _RELEVANT


def digest_of(settings: Settings) -> str:
    """Return the hash of the code's version and of the settings that an engine reads, secrets left out."""
    relevant = {name: value for name, value in settings.model_dump(mode="json").items() if is_relevant(name)}
    url = urlsplit(settings.storage_url)
    relevant["storage_url"] = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    content = json.dumps([code_version(), digest_of_sources(Path(__file__).parent), relevant], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_CHARS]


def version_of(application: Any) -> EngineVersion | None:
    """Return the version that an application in Serve's overview tells, or None."""
    for name in application.deployments:
        if found := _NAME.fullmatch(name):
            revision = None if found["revision"] == _NO_REVISION else found["revision"]
            pause = VllmPause(int(found["wait_s"]), int(found["since_s"])) if found["wait_s"] else None
            return EngineVersion(found["digest"], int(found["built_at"]), found["kind"] == "Listed", revision, pause)
    return None


class VersionMarker:
    """A deployment that never has a replica; its name tells the version of its application."""


def marker(version: EngineVersion) -> Application:
    """Build the marker of a version, as a part of an engine's application."""
    deployment = serve.deployment(
        VersionMarker,
        name=version.name,
        autoscaling_config={"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1},
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind()
