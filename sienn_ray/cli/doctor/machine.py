"""Checks of the machine: Python, packages, CPUs, memory and GPUs. Nothing imports torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess  # nosec B404 # no shell, and no words of users
import sys

import psutil

from sienn_ray.cli.doctor.findings import Finding, fail, ok, warn

GIB = 1024**3
_MIN_PYTHON = (3, 11)
# Ray, the tracker, an ingress and an engine of a small base model.
_MIN_MEMORY_BYTES = 3 * GIB
_MIN_CPUS = 2
_PACKAGES = ("torch", "ray", "transformers", "peft")
_GPU_TIMEOUT_S = 5.0


def check_python() -> Finding:
    """Python's version."""
    found = f"Python {platform.python_version()} ({sys.executable})"
    if sys.version_info < _MIN_PYTHON:
        return fail(found, f"use Python {'.'.join(map(str, _MIN_PYTHON))} or newer")
    return ok(found)


def check_packages() -> Finding:
    """Versions of the packages that do the work."""
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return fail(f"{', '.join(missing)} not installed", "run `pip install sienn-ray` in this environment")
    return ok(", ".join(found))


def check_cpus() -> Finding:
    """CPUs that this process may use."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{number} CPU(s), load {psutil.getloadavg()[0]:.1f}"
    return ok(found) if number >= _MIN_CPUS else warn(found, f"use {_MIN_CPUS} or more; all works, slowly")


def check_memory() -> Finding:
    """Memory that is free."""
    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} GiB of {memory.total / GIB:.1f} GiB free"
    if memory.available >= _MIN_MEMORY_BYTES:
        return ok(found)
    return warn(found, f"end other programs; the service wants {_MIN_MEMORY_BYTES // GIB} GiB")


def check_gpus() -> Finding:
    """GPUs, as NVIDIA's driver names them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ok("none (no nvidia-smi); fine-tunes and engines use the CPUs")
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=False)  # nosec B603 # no shell
    except subprocess.TimeoutExpired:
        return fail(f"nvidia-smi hasn't answered within {_GPU_TIMEOUT_S:g} s", "restart the driver, or the machine")
    if done.returncode:
        return warn("nvidia-smi found no GPU", "install NVIDIA's driver, or set SIENN_TRAINING_GPU=never")
    return ok("; ".join(line.strip() for line in done.stdout.splitlines()))
