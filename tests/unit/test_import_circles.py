"""Modules of a package don't import each other in a circle, not even within functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PACKAGES = [f"sienn_ray.{name}" for name in ("datasets", "training", "inference", "export", "api", "cli")]


def imports_within(package: str) -> dict[str, set[str]]:
    """What each module of a package imports of the same package."""
    folder = ROOT.joinpath(*package.split("."))
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in folder.glob("**/*.py")}
    return {module: set(_imported(module)) & modules - {module} for module in modules}


def _imported(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def in_circles(imports: Mapping[str, set[str]]) -> set[str]:
    """Modules that come back to themselves, and those that lead to such."""
    left = dict(imports)
    while done := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in done}
    return set(left)


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_module_needs_itself(package: str) -> None:
    imports = imports_within(package)
    assert len(imports) > 5
    assert in_circles(imports) == set()


def test_the_check_itself() -> None:
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
    assert in_circles({"a": {"b"}, "b": {"a"}, "c": set()}) == {"a", "b"}
