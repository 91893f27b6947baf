"""Have processes for a run started, and its imports done, while its program still does its own.

Ray starts a process for Ray Train's controller and one for each worker, one after the other, and each then imports
torch and more. A process that has run a task is taken for an actor with the same runtime environment. If Ray should
choose another process after all, nothing but the time saved is lost.
"""

from __future__ import annotations

import importlib
import os

import ray

# Ray Train gives these to its processes; the runtime environments have to be equal for a process to be taken again.
_HEALTH_CHECK = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
_HEALTH_CHECK_S = "0.2"
_WORKER_ENV = {_HEALTH_CHECK: _HEALTH_CHECK_S}
_CONTROLLER_ENV = {**_WORKER_ENV, "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"}


def start_processes() -> None:
    """Start what a run on this node will need; returns at once."""
    # Ray Train looks at its workers this often, and hands over their reports as often; its default is 2 s.
    os.environ[_HEALTH_CHECK] = _HEALTH_CHECK_S
    load = ray.remote(num_cpus=0, max_retries=0)(_load)
    load.options(runtime_env={"env_vars": _WORKER_ENV}).remote("sienn_ray.training.loop")
    load.options(runtime_env={"env_vars": _CONTROLLER_ENV}).remote("ray.train.torch")


def _load(module: str) -> None:
    importlib.import_module(module)
