"""Parts of the product that something else stands in for meanwhile, to see what each does."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part of the product.

    Args:
        module: Where it is.
        name: The function or number in it.
        instead: What stands there meanwhile.
    """

    module: str
    name: str
    instead: Any


@contextmanager
def without(parts: tuple[Part, ...]) -> Iterator[None]:
    """Have something else stand in the place of parts meanwhile."""
    modules = [importlib.import_module(part.module) for part in parts]
    before = [getattr(module, part.name) for module, part in zip(modules, parts, strict=True)]
    for module, part in zip(modules, parts, strict=True):
        setattr(module, part.name, part.instead)
    try:
        yield
    finally:
        for module, part, value in zip(modules, parts, before, strict=True):
            setattr(module, part.name, value)
