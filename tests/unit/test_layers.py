"""The layers of the architecture, read from the imports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Top to bottom. A module may import what is below its own layer, and nothing beside it.
LAYERS: list[set[str]] = [
    {"deployments"},
    {"api", "cli", "train"},
    {"jobs"},
    {"training", "inference", "export"},
    {"datasets", "base_model"},
    {"storage", "catalog", "settings", "ray_metrics", "compute_threads"},
    {"metrics", "errors"},
]
LAYER_OF = {unit: depth for depth, layer in enumerate(LAYERS) for unit in layer}
# What the ingress, the tracker and the CLI run in; these must stay small and start fast.
WITHOUT_TORCH = [
    "sienn_ray.cli",
    "sienn_ray.train",
    "sienn_ray.jobs.client",
    "sienn_ray.jobs.tracker",
    "sienn_ray.api.app",
    "deployments.ingress",
    "deployments.app",
]


def modules() -> list[Path]:
    """Every module of the project, relative to its root."""
    found = [
        path.relative_to(ROOT) for folder in ("sienn_ray", "deployments") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    return sorted(path for path in found if path.parts != ("sienn_ray", "__init__.py"))


def unit_of(parts: tuple[str, ...]) -> str | None:
    """`("sienn_ray", "jobs", "store")` is of the unit `jobs`; the root package is of none."""
    if parts[0] == "sienn_ray":
        return parts[1] if len(parts) > 1 else None
    return "deployments" if parts[0] == "deployments" else None


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and unit of every import of this project, those in functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(source)):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = (*above, *(node.module.split(".") if node.module else ()))
            # `from sienn_ray import catalog` names a module, `from sienn_ray import __version__` doesn't.
            names = [(*base, alias.name) if base == ("sienn_ray",) else base for alias in node.names]
        for parts in names:
            unit = unit_of(parts)
            if unit is not None and not unit.startswith("__"):
                yield node.lineno, unit


def violations(source: str, path: Path) -> list[str]:
    """Imports that don't point strictly down."""
    parts = path.with_suffix("").parts
    own = unit_of(parts)
    assert own in LAYER_OF, f"{path} is in no layer; place '{own}' in the architecture and in this test"
    found = []
    for line, unit in imported(source, parts[:-1]):
        assert unit in LAYER_OF, f"{path}:{line} imports '{unit}', which is in no layer"
        if unit != own and LAYER_OF[unit] <= LAYER_OF[own]:
            found.append(f"{path}:{line} imports '{unit}', which is not below '{own}'")
    return found


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_down(path: Path) -> None:
    assert violations((ROOT / path).read_text(), path) == []


@pytest.mark.parametrize(
    ("path", "source", "is_allowed"),
    [
        ("sienn_ray/jobs/schema.py", "from sienn_ray.training.config import TrainingConfig", True),
        ("sienn_ray/jobs/store.py", "from sienn_ray.jobs.schema import JobRecord", True),
        ("sienn_ray/jobs/store.py", "from .schema import JobRecord", True),
        ("sienn_ray/storage.py", "import sienn_ray", True),
        ("sienn_ray/errors.py", "from sienn_ray import __version__", True),
        ("sienn_ray/storage.py", "import torch, json", True),
        ("deployments/app.py", "from sienn_ray import errors, settings", True),
        ("sienn_ray/training/loop.py", "from sienn_ray.jobs.client import tracker_client", False),
        ("sienn_ray/training/loop.py", "import sienn_ray.export.archive", False),
        ("sienn_ray/training/loop.py", "def f():\n    from sienn_ray.inference import engine", False),
        ("sienn_ray/training/loop.py", "from ..inference import engine", False),
        ("sienn_ray/storage.py", "from sienn_ray import settings", False),
        ("sienn_ray/storage.py", "if TYPE_CHECKING:\n    from sienn_ray.catalog import CATALOG", False),
        ("sienn_ray/storage.py", "from . import catalog", False),
        ("sienn_ray/cli.py", "from deployments.app import build", False),
        ("sienn_ray/errors.py", "import os, sienn_ray.metrics", False),
    ],
)
def test_the_check_itself(path: str, source: str, is_allowed: bool) -> None:
    assert (violations(source, Path(path)) == []) is is_allowed


def module_of(path: Path) -> str:
    """`sienn_ray/jobs/store.py` is the module `sienn_ray.jobs.store`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Modules that each module imports, also in functions and under TYPE_CHECKING."""
    imports: dict[str, set[str]] = {}
    for module, source in sources.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                within = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= (within & sources.keys()) or {node.module}
        imports[module] = (named & sources.keys()) - {module}
    return imports


def circles(imports: dict[str, set[str]]) -> set[frozenset[str]]:
    """Modules that reach each other by their imports."""
    reached = {module: reachable(imports, module) for module in imports}
    return {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in imports
        if module in reached[module]
    }


def reachable(imports: dict[str, set[str]], module: str) -> set[str]:
    """All that a module imports, and what that imports."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = imports[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_imports_make_no_circle() -> None:
    sources = {module_of(path): (ROOT / path).read_text() for path in modules()}
    known = {frozenset({"sienn_ray.training.publication", "sienn_ray.training.trainer"})}
    assert circles(graph(sources)) - known == set()


def test_the_check_for_circles_itself() -> None:
    lazy = "def f():\n    from a import c"
    assert circles(graph({"a.b": lazy, "a.c": "import a.d", "a.d": "from a.b import x\nimport os", "a.e": lazy})) == {
        frozenset({"a.b", "a.c", "a.d"})
    }


def test_no_layer_is_of_the_past() -> None:
    here = {unit_of(path.with_suffix("").parts) for path in modules()}
    assert set(LAYER_OF) - here <= {"metrics"}  # the word for it is kept free


def test_torch_stays_out_of_ingress_tracker_and_cli() -> None:
    program = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(WITHOUT_TORCH)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_a_fine_tune_brings_no_database() -> None:
    code = "import sys, sienn_ray.train; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
