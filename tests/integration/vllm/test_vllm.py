"""Engines of vLLM in replicas that run another Python, asked through HTTP."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.integration.service import PROMPT, ROWS, Service, wait_for
from tests.integration.vllm.conftest import PYTHON, START_TIMEOUT_S
from tests.support.tiny_model import TINY_ID

# Enough for the adapter to change what the model says.
TRAINED = {"num_epochs": 10, "learning_rate": 0.001, "lora_r": 8, "lora_alpha": 256}


def ask(service: Service, job_id: str, **options: Any) -> str:
    """Ask an adapter, whose engine may have to start first."""
    body = {"job_id": job_id, "prompt": PROMPT, "max_new_tokens": 16, "do_sample": False, **options}
    answer = httpx2.post(service.url + "/api/test-model", json=body, timeout=START_TIMEOUT_S).raise_for_status()
    return str(answer.json()["generated_text"])


@pytest.fixture(scope="module")
def adapters(with_vllm: Service) -> tuple[str, str]:
    """A plain adapter, and one with DoRA."""
    dataset_id = with_vllm.upload(ROWS)
    plain, dora = (with_vllm.start(dataset_id, **TRAINED, use_dora=use_dora) for use_dora in (False, True))
    for job_id in (plain, dora):
        with_vllm.wait_for_end(job_id)
    return plain, dora


@pytest.fixture(scope="module")
def replicas(with_vllm: Service, adapters: tuple[str, str]) -> dict[str, psutil.Process]:
    """The processes of both engines, which have answered, by the names of their deployments."""
    texts = {ask(with_vllm, job_id) for job_id in adapters}
    assert ask(with_vllm, adapters[0], use_adapter=False) not in texts
    found = with_vllm.processes(f"ray::ServeReplica:engine-{TINY_ID.replace('/', '--')}")
    return {" ".join(process.cmdline()).split(":")[4].split("-")[0]: process for process in found}


def is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_vllm_serves_plain_adapters_in_its_python_and_our_engine_the_others(
    replicas: dict[str, psutil.Process],
) -> None:
    folders = {name: Path(process.environ()["PATH"].split(":")[0]) for name, process in replicas.items()}
    assert set(folders) == {"VllmEngine", "Engine"}
    assert folders["VllmEngine"] == PYTHON.parent != folders["Engine"]


def test_a_killed_replica_leaves_no_process_of_vllm(replicas: dict[str, psutil.Process]) -> None:
    replica = replicas["VllmEngine"]
    cores = replica.children(recursive=True)
    assert cores
    replica.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, cores)), "the end of vLLM's processes", 60.0)
