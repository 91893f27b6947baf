"""The docstring of every package lists its modules, so that a reader finds a thing without opening each file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINE_CHARS = 100
# `name: words`, and `name/: words` for a package.
ENTRY = re.compile(r"(?P<name>[a-z0-9_]+/?): (?P<words>\S.*)")
PACKAGES = sorted(
    path.parent for folder in ("sienn_ray", "deployments") for path in ROOT.glob(f"{folder}/**/__init__.py")
)


def modules_of(package: Path) -> set[str]:
    """The modules of a package, and its packages with a slash."""
    files = {path.stem for path in package.glob("*.py")} - {"__init__"}
    return files | {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}


def entries_of(source: str) -> list[tuple[str, str]]:
    """The modules that a package's docstring lists, each with its words; the first paragraph lists none."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    _, _, body = docstring.partition("\n\n")
    return [(found["name"], found["words"]) for line in body.splitlines() if (found := ENTRY.fullmatch(line))]


def faults(listed: list[str], modules: set[str]) -> list[str]:
    """The differences between a list and the modules there are."""
    return [
        *(f"{name} is missing" for name in sorted(modules - set(listed))),
        *(f"{name} isn't there" for name in sorted(set(listed) - modules)),
        *(f"{name} is listed twice" for name in sorted({name for name in listed if listed.count(name) > 1})),
    ]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstring_lists_the_modules(package: Path) -> None:
    listed = [name for name, _ in entries_of((package / "__init__.py").read_text())]
    found = faults(listed, modules_of(package))
    assert found == [], f"docstring of {package.relative_to(ROOT)}/__init__.py: {'; '.join(found)}"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_are_short(package: Path) -> None:
    lines = [f"{name}: {words}" for name, words in entries_of((package / "__init__.py").read_text())]
    assert [line for line in lines if len(line) > MAX_LINE_CHARS or not line.endswith(".")] == []


def test_the_check_itself() -> None:
    lines = ["A package: of modules.", "", "here: a module.", "sub/: a package.", "gone: another.", "", "A group:", ""]
    source = repr("\n".join([*lines, "here: again."]))
    listed = [name for name, _ in entries_of(source)]
    assert listed == ["here", "sub/", "gone", "here"]
    assert faults(listed, {"here", "sub/", "new"}) == ["new is missing", "gone isn't there", "here is listed twice"]


if __name__ == "__main__":
    for each in PACKAGES:
        there = [name for name, _ in entries_of((each / "__init__.py").read_text())]
        for fault in faults(there, modules_of(each)):
            print(f"{each.relative_to(ROOT)}: {fault}")
