"""The place of llama.cpp's code on this machine. Nothing is loaded here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

INSTALL_COMMAND = "pip install 'sienn-ray[gguf]'"
MODULE = "xllamacpp"


def is_installed() -> bool:
    """Return whether llama.cpp's quantization is installed."""
    return shared_object() is not None


def shared_object() -> Path | None:
    """The package's compiled module, which has all of llama.cpp in it."""
    spec = importlib.util.find_spec(MODULE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).iterdir()):
            if path.name.startswith(f"{MODULE}.") and path.suffix in {".so", ".pyd"}:
                return path
    return None
