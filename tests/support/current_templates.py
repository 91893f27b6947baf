"""Chat templates of current models, read from TRL's package where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sienn_ray.datasets.prompt import PromptFormat, PromptKind

_spec = find_spec("trl")
assert _spec is not None
assert _spec.submodule_search_locations is not None
_FOLDER = Path(_spec.submodule_search_locations[0]) / "chat_templates"
# The others are made for training with marks around answers, which we find by ourselves.
TEMPLATES = sorted(path for path in _FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))


def format_of(path: Path) -> PromptFormat:
    """Return the prompt format of a template's file."""
    return PromptFormat(PromptKind.CHAT, path.read_text())
