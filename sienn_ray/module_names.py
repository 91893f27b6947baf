"""Names of a base model's linear modules, from what is on this machine of it: no weights are loaded, nor torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sienn_ray.catalog import PACKAGED, BaseModelSource, FoundBaseModel
from sienn_ray.errors import InvalidInputError
from sienn_ray.hub import cached_snapshot

_WEIGHT = ".weight"
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 64 * 1024 * 1024
_MAX_NAMES_SHOWN = 5
_EMBEDDINGS = ("embed", "wte", "wpe")
# Experts may be one module in transformers that are many in files.
_FUSED = "experts"


def check_target_modules(base_model: str, found: FoundBaseModel, names: Sequence[str]) -> None:
    """Refuse names of modules that a base model hasn't, as far as that is known before its weights are loaded.

    Args:
        base_model: Hub id.
        found: Where it is, and at which commit.
        names: Ends of module names that are to get an adapter.

    Raises:
        InvalidInputError: A name is the end of no linear module.
    """
    known = linear_names(base_model, found)
    bad = [name for name in names if name.rpartition(".")[2] not in known] if known else []
    if bad:
        more = f" and {len(bad) - _MAX_NAMES_SHOWN} more" if len(bad) > _MAX_NAMES_SHOWN else ""
        raise InvalidInputError(
            f"target_modules has {', '.join(bad[:_MAX_NAMES_SHOWN])}{more}, which {base_model} has no linear "
            f"modules of; it has {', '.join(sorted(known))}; use some of these, or 'all-linear'"
        )


def linear_names(base_model: str, found: FoundBaseModel) -> frozenset[str]:
    """Return the last parts of the names of a base model's linear modules; none where they aren't known."""
    packaged = PACKAGED.get(base_model)
    if found.source is BaseModelSource.PACKAGE and packaged is not None:
        return frozenset(packaged.linear_names)
    folder = cached_snapshot(base_model, found.revision) if found.source is BaseModelSource.HUB_CACHE else None
    if folder is None:
        return frozenset()
    names = set()
    try:
        for name, shape in _tensors(folder):
            if _FUSED in name:
                return frozenset()
            if name.endswith(_WEIGHT) and len(shape) > 1:
                names.add(name.removesuffix(_WEIGHT).rpartition(".")[2])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()  # whoever loads the weights says what is wrong with them
    return frozenset(name for name in names if not name.startswith(_EMBEDDINGS))


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Names and shapes of the tensors of safetensors files, from their headers."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            num_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if num_bytes > _MAX_HEADER_BYTES:
                raise ValueError(f"{path.name} has a header of {num_bytes} bytes")
            header = json.loads(file.read(num_bytes))
        yield from ((name, entry["shape"]) for name, entry in header.items() if name != "__metadata__")
