"""Fine-tune through the whole service: upload, Ray job, Ray Data, TorchTrainer, published adapter."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

_START_S = 180.0
_JOB_S = 3600.0
# Each look takes a few hundredths of a second of the same CPUs.
_LOOK_S = 3.0


@dataclass(frozen=True)
class PlatformRun:
    """What a job told of itself when it had ended."""

    status: dict[str, Any]
    adapter_folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """Its `meta`."""
        facts: dict[str, Any] = self.status["meta"]
        return facts


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str

    def upload(self, path: Path) -> str:
        with path.open("rb") as file:
            answer = httpx2.post(f"{self.url}/api/upload-dataset", files={"file": (path.name, file)}, timeout=120)
        return str(answer.raise_for_status().json()["dataset_id"])

    def train(self, dataset_id: str, **options: Any) -> PlatformRun:
        """Start a job and wait for its end.

        Raises:
            RuntimeError: It failed, or took too long.
        """
        body = {"dataset_id": dataset_id, "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct", **options}
        answer = httpx2.post(f"{self.url}/api/start-finetuning", json=body, timeout=60).raise_for_status()
        job_id = answer.json()["job_id"]
        deadline = time.monotonic() + _JOB_S
        while time.monotonic() < deadline:
            status = httpx2.get(f"{self.url}/api/training-status/{job_id}", timeout=60).raise_for_status().json()
            if status["status"] == "completed":
                return PlatformRun(status, Path(status["meta"]["model_path"]))
            if status["status"] == "failed":
                raise RuntimeError(status["message"])
            time.sleep(_LOOK_S)
        raise RuntimeError(f"job {job_id} didn't end within {_JOB_S:.0f} s")


@contextlib.contextmanager
def running_service(
    models: Path,
    *,
    settings: Mapping[str, object] | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Iterator[Service]:
    """A service of its own in a temporary home.

    Args:
        models: Where it finds converted base models.
        settings: What is set beside home and port.
        prepare: Gets the home before the service starts.
    """
    with tempfile.TemporaryDirectory(prefix="sienn-bench-") as home:
        (Path(home) / "models").symlink_to(models)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log_path = Path(home) / "serve.log"
        if prepare is not None:
            prepare(Path(home))
        chosen = {"home": home, "port": port, **(settings or {})}
        environment = {f"SIENN_{name.upper()}": str(value) for name, value in chosen.items()}
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "deployments.local"],
                env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_ready(log_path, process)
            yield Service(f"http://127.0.0.1:{port}")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(120)


def _wait_until_ready(log_path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while "Ctrl-C stops it" not in log_path.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the service didn't start:\n{log_path.read_text()[-3000:]}")
        time.sleep(0.5)
