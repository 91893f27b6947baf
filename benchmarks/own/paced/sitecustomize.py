"""Has every Python process that finds this folder on its path take `paced_engine` for the built-in engine.

Ray's processes inherit `PYTHONPATH`, so a service that is started with this folder on it is whole but for its engine.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_ENGINE = "sienn_ray.inference.batching.engine"


class _PacedEngines(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == _ENGINE else None

    def exec_module(self, module: ModuleType) -> None:
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        module.BatchingEngine = importlib.import_module("paced_engine").PacedEngine  # type: ignore[attr-defined]


sys.meta_path.insert(0, _PacedEngines())
