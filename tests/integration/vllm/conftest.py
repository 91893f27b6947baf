"""A service whose nodes have vLLM's build for CPUs in an environment of its own, and a GPU that there isn't."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sienn_ray.settings import MIB
from tests.integration.service import Service, running_service

ROOT = Path(__file__).parents[3]
# As `make test-vllm` makes it, where nothing else is said.
PYTHON = Path(os.environ.get("SIENN_TEST_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
# Loading vLLM takes half a minute of two CPUs.
START_TIMEOUT_S = 600

collect_ignore_glob = [] if PYTHON.exists() else ["test_*.py"]


@pytest.fixture(scope="package")
def with_vllm(tmp_path_factory: pytest.TempPathFactory, hub_home: Path) -> Iterator[Service]:
    """A service that chooses its engines by itself. Ray is told of a GPU, for which this build of vLLM has no use."""
    with running_service(
        tmp_path_factory.mktemp("vllm"),
        hub_home,
        SIENN_ENGINE_PYTHON=str(PYTHON),
        SIENN_ENGINE_NUM_GPUS="0.25",
        SIENN_ENGINE_START_TIMEOUT_S=str(START_TIMEOUT_S),
        # A machine of little memory has room for both engines.
        SIENN_ADAPTER_CACHE_MAX_BYTES=str(100 * MIB),
        SIENN_TRAINING_GPU="never",
        RAY_OVERRIDE_RESOURCES=json.dumps({"GPU": 1}),
        # The environment has no editable install of the checkout that is tested, if it was given.
        PYTHONPATH=str(ROOT),
    ) as running:
        yield running
