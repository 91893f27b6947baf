"""The layers of the architecture, and that no modules import each other in a circle, read from the imports."""

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
    {"template_check"},
    {"datasets", "base_model", "module_names", "model_sizes", "local_copies"},
    {"storage", "storage_keys", "catalog", "settings", "ray_metrics", "compute_threads", "chat_templates", "precision"},
    {"hub"},
    {"retries", "admission", "context_length", "access", "outbound"},
    {"metrics", "errors", "memory_shortage", "fault_words", "code_version", "time_limit", "template_probe"},
]
LAYER_OF = {unit: depth for depth, layer in enumerate(LAYERS) for unit in layer}
# What the ingress, the tracker and the CLI run in; these must stay small and start fast.
WITHOUT_TORCH = [
    "sienn_ray.cli",
    "sienn_ray.train",
    "sienn_ray.jobs.client.tracker_client",
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


def imported_names(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name of everything that is imported, in functions and under TYPE_CHECKING as well.

    `from sienn_ray.jobs import store` and `from sienn_ray.storage import Storage` give both names in full.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            for alias in node.names:
                yield node.lineno, (*above, *(node.module.split(".") if node.module else ()), alias.name)


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and unit of every import of this project."""
    for line, parts in imported_names(source, package):
        unit = unit_of(parts)
        if unit is not None and not unit.startswith("__"):
            yield line, unit


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
        ("sienn_ray/jobs/store/store.py", "from sienn_ray.jobs.schema import JobRecord", True),
        ("sienn_ray/jobs/store/store.py", "from .schema import JobRecord", True),
        ("sienn_ray/storage.py", "import sienn_ray", True),
        ("sienn_ray/errors.py", "from sienn_ray import __version__", True),
        ("sienn_ray/storage.py", "import torch, json", True),
        ("deployments/app.py", "from sienn_ray import errors, settings", True),
        ("sienn_ray/training/loop.py", "from sienn_ray.jobs.client.tracker_client import tracker_client", False),
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


def project() -> dict[str, str]:
    """Every module's source, by its dotted name; a package's is that of its `__init__`."""
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): (ROOT / path).read_text() for path in modules()
    }


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """The modules of the project that each one imports."""
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        is_package = any(other.startswith(f"{name}.") for other in sources)
        package = tuple(name.split("."))[: None if is_package else -1]
        names = [(".".join(parts), ".".join(parts[:-1])) for _, parts in imported_names(source, package)]
        # The last part is a module, or something within the one before it.
        found = {full if full in sources else parent for full, parent in names}
        graph[name] = (found & sources.keys()) - {name}
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """The modules that one imports, and those that these import, and so on."""
    found: set[str] = set()
    pending = [start]
    while pending:
        new = graph[pending.pop()] - found
        found |= new
        pending += new
    return found


def part_of(module: str) -> str:
    """The sub-package that a module is in: `sienn_ray.jobs.store.tables` is part of `sienn_ray.jobs.store`."""
    return ".".join(module.split(".")[:3])


def graph_of_parts(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The sub-packages that each one imports; a module of none stands for itself."""
    parts: dict[str, set[str]] = {}
    for module, others in graph.items():
        parts.setdefault(part_of(module), set()).update(part_of(other) for other in others)
    return {part: others - {part} for part, others in parts.items()}


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules each of which imports all others, through some of them or at once."""
    reached = {name: reachable(graph, name) for name in graph}
    return {frozenset(other for other in reached[name] if name in reached[other]) for name in graph} - {frozenset()}


def test_modules_import_each_other_in_no_circle() -> None:
    assert [" <-> ".join(sorted(circle)) for circle in circles(import_graph(project()))] == []


def test_sub_packages_import_each_other_in_no_circle() -> None:
    parts = graph_of_parts(import_graph(project()))
    assert {"sienn_ray.jobs.store", "sienn_ray.jobs.tracker"} <= parts.keys()
    assert [" <-> ".join(sorted(circle)) for circle in circles(parts)] == []


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a": "import b", "b": "import c", "c": ""}, set()),
        ({"a": "import b", "b": "import c", "c": "def f():\n    import a"}, {frozenset("abc")}),
        ({"a": "from b import B", "b": "if TYPE_CHECKING:\n    from a import A"}, {frozenset("ab")}),
        ({"p": "", "p.a": "from p import b", "p.b": "from .a import A"}, {frozenset({"p.a", "p.b"})}),
        ({"p": "from p import a", "p.a": "import p.b", "p.b": ""}, set()),
        ({"p": "from p.a import A", "p.a": "from p import B"}, {frozenset({"p", "p.a"})}),
        ({"a": "import b", "b": "import a", "c": "import d", "d": "import c"}, {frozenset("ab"), frozenset("cd")}),
        ({"a": "import a"}, set()),
    ],
)
def test_the_check_of_circles(sources: dict[str, str], found: set[frozenset[str]]) -> None:
    assert circles(import_graph(sources)) == found


def test_routes_import_no_routes() -> None:
    routes = "sienn_ray.api.routes."
    graph = import_graph(project())
    sideways = [(name, sorted(other for other in graph[name] if other.startswith(routes))) for name in graph]
    assert [(name, others) for name, others in sideways if name.startswith(routes) and others] == []


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
