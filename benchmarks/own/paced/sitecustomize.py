"""Has every Python process that finds this folder on its path take `paced_engine` for the built-in engine.

Ray's processes inherit `PYTHONPATH`, so a service that is started with this folder on it is whole but for its engine.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_ENGINE = "sienn_ray.inference.batching.engine"


class _PacedEngines(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == _ENGINE else None

    def exec_module(self, module):
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        module.BatchingEngine = importlib.import_module("paced_engine").PacedEngine


sys.meta_path.insert(0, _PacedEngines())
