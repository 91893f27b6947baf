"""The first line of a public docstring begins with a verb, or with a noun that the code names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Questions and pronouns: they make a reader look elsewhere for the thing that is meant.
OPENING = re.compile(
    r"(What|Whether|Whom|Who|Whose|Where|Which|How|Why|When|That|It|Its|They|Their|Them|Those|These|This|Says"
    r"|In which|The same|One of them|Some of them|All of them|Nobody|Something)\b"
)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(node: Documented, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and first line of every public docstring; a module's name is empty."""
    if text := ast.get_docstring(node):
        yield name, text.splitlines()[0]
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(child.name):
            yield from docstrings(child, f"{name}.{child.name}".lstrip("."))


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def unclear_of(source: str) -> list[str]:
    """Names of the docstrings that begin with a question or a pronoun."""
    return [name for name, line in docstrings(ast.parse(source)) if OPENING.match(line)]


def unclear() -> list[str]:
    """File and name of every such docstring of the project."""
    paths = sorted(path for folder in ("sienn_ray", "deployments") for path in ROOT.glob(f"{folder}/**/*.py"))
    return [
        f"{path.relative_to(ROOT).as_posix()} {name}".rstrip()
        for path in paths
        for name in unclear_of(path.read_text())
    ]


def test_first_lines_begin_with_a_verb_or_a_noun() -> None:
    assert unclear() == [], "begin these docstrings with a verb or a noun: 'Return whether ...', 'The state of ...'"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('"""What a module is for."""', [""]),
        ('"""The state of a module."""', []),
        ('def f():\n    """Whether it is so."""', ["f"]),
        ('def f():\n    """Return whether it is so."""', []),
        ('class A:\n    """Its letters."""\n    def f(self):\n        """Says who."""', ["A", "A.f"]),
        ('class A:\n    """The whole."""\n    def f(self):\n        """Whose\n\n        turn."""', ["A.f"]),
        ('class A:\n    async def f(self):\n        """How it is done."""', ["A.f"]),
        ('def _f():\n    """What is private may be short."""', []),
        ('class _A:\n    def f(self):\n        """What is private may be short."""', []),
        ('class A:\n    def __call__(self):\n        """What is called."""', ["A.__call__"]),
        ('"""Items, one at a time."""', []),
    ],
)
def test_the_check_itself(source: str, names: list[str]) -> None:
    assert unclear_of(source) == names
