"""A real service in a process of its own, as a person runs it, and what tests do to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.support.tiny_model import CONTRACT_ID, STRICT_ID, TINY_ID, add_to_hub_cache, save_strict_model

START_TIMEOUT_S = 180.0
# Of a request for which no other limit is meant; httpx gives up after five seconds.
REQUEST_TIMEOUT_S = 60.0
JOB_TIMEOUT_S = 480.0


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """Poll until a condition gives something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} didn't come true within {timeout_s:.0f} s")
        time.sleep(0.25)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, hub_home: Path) -> dict[str, str]:
    """Variables for programs of one service; the hub's cache is the tests' own, so nothing is fetched."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SIENN_", "RAY_", "OMP_"))}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # or every process would compile the project anew
    return {
        **inherited,
        "SIENN_HOME": str(home),
        "SIENN_ENV": "test",
        "SIENN_REPORT_INTERVAL_S": "0.2",
        "SIENN_JOB_POLL_S": "0.5",
        "HF_HOME": str(hub_home),
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": "token",
        # As the service has it, so that programs which join find its cluster on 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def make_hub_home(folder: Path, tiny_model_folder: Path) -> Path:
    """A hub cache with the tiny model, under its own id and under the one that the contract's examples use."""
    for model_id in (TINY_ID, CONTRACT_ID):
        add_to_hub_cache(tiny_model_folder, folder, model_id)
    strict_folder = folder / "strict-model"
    save_strict_model(tiny_model_folder, strict_folder)
    add_to_hub_cache(strict_folder, folder, STRICT_ID)
    return folder


class RefusedError(Exception):
    """The service answered with an error."""


@dataclass
class Service:
    """A running service."""

    url: str
    ray_address: str
    dashboard_url: str
    process: subprocess.Popen[str]
    environment: dict[str, str]
    log_path: Path
    _joined: JoinedProcess | None = None

    @property
    def storage(self) -> Path:
        """Folder of its artifacts, where they are local files."""
        return Path(self.environment["SIENN_HOME"]) / "storage"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of an admin's requests."""
        key = self.environment.get("SIENN_ADMIN_KEY")
        return {} if key is None else {"X-API-Key": key}

    def get(self, path: str) -> Any:
        response = httpx2.get(self.url + path, timeout=30.0, headers=self.headers)
        if response.is_error:
            raise RefusedError(response.text)
        return response.json()

    def post(self, path: str, **options: Any) -> Any:
        response = httpx2.post(self.url + path, timeout=300.0, headers=self.headers, **options)
        if response.is_error:
            raise RefusedError(response.text)
        return response.json()

    def upload(self, rows: str, filename: str = "rows.jsonl") -> str:
        return str(self.post("/api/upload-dataset", files={"file": (filename, rows.encode())})["dataset_id"])

    def start(self, dataset_id: str, **options: Any) -> str:
        body = {"dataset_id": dataset_id, "model_name": TINY_ID, "max_length": 128, **options}
        return str(self.post("/api/start-finetuning", json=body)["job_id"])

    def status(self, job_id: str) -> Any:
        return self.get(f"/api/training-status/{job_id}")

    def wait_until(self, job_id: str, reached: Callable[[Any], Any], what: str) -> Any:
        """Poll a job until it has reached something; fails at once when the job fails first."""

        def look() -> Any:
            try:
                job = self.status(job_id)
            except (httpx2.HTTPError, RefusedError):  # while the tracker is away
                return None
            if reached(job):
                return job
            assert job["status"] != "failed", f"{job['message']}\n{self.log_of(job_id)[-5000:]}"
            return None

        return wait_for(look, what, JOB_TIMEOUT_S)

    def wait_for_end(self, job_id: str) -> Any:
        return self.wait_until(job_id, lambda job: job["status"] == "completed", f"completion of job {job_id}")

    def ask(self, job_id: str, prompt: str, **options: Any) -> Any:
        body = {"job_id": job_id, "prompt": prompt, "max_new_tokens": 10, "do_sample": False, **options}
        return self.post("/api/test-model", json=body)

    def wait_for_failure(self, job_id: str) -> Any:
        def look() -> Any:
            job = self.status(job_id)
            assert job["status"] != "completed", job
            return job if job["status"] == "failed" else None

        return wait_for(look, f"failure of job {job_id}", JOB_TIMEOUT_S)

    def events(self, job_id: str) -> list[Any]:
        return list(self.get(f"/api/jobs/{job_id}/events?limit=1000")["events"])

    def log_of(self, job_id: str) -> str:
        """What the training program of a job's latest attempt printed."""
        path = f"/api/jobs/{job_id}/logs?tail=100000"
        return httpx2.get(self.url + path, timeout=60.0, headers=self.headers).raise_for_status().text

    def on_ray(self, code: str) -> str:
        """Run a few lines in a process that has joined the cluster, the same one each time; gives what they print."""
        if self._joined is None:
            self._joined = JoinedProcess(self.ray_address, self.environment)
        return self._joined.run(code)

    def on_ray_anew(self, code: str) -> str:
        """The same in a process, and so a Ray job, of its own."""
        with contextlib.closing(JoinedProcess(self.ray_address, self.environment)) as joined:
            return joined.run(code)

    def leave_ray(self) -> None:
        """End the process that has joined the cluster."""
        if self._joined is not None:
            self._joined.close()

    def processes(self, title: str) -> list[psutil.Process]:
        """Processes of this service's cluster whose command line begins so."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
        return found


class JoinedProcess:
    """A Python that has joined a cluster, and runs what it is given.

    Args:
        ray_address: The cluster's.
        environment: Variables of the cluster's programs.
    """

    _PROGRAM = """
import contextlib, io, json, sys, traceback
import ray
answers, sys.stdout = sys.stdout, sys.stderr
ray.init(sys.argv[1], namespace="sienn", log_to_driver=False)
for line in sys.stdin:
    printed, error = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), {"__name__": "__main__", "ray": ray})
        except BaseException:
            error = traceback.format_exc()
    print(json.dumps([printed.getvalue(), error]), file=answers, flush=True)
"""

    def __init__(self, ray_address: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM, ray_address],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str) -> str:
        """Run some lines; gives what they print."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(code) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, f"the process that had joined the cluster has ended with {self._process.wait()}"
        printed, error = json.loads(answer)
        assert error is None, error
        return str(printed)

    def close(self) -> None:
        """Have it leave the cluster."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(60)


@contextlib.contextmanager
def running_service(home: Path, hub_home: Path, **settings: str) -> Iterator[Service]:
    """Start the service, wait until it is ready, and stop it as Ctrl-C does."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    variables = {**environment(home, hub_home), "SIENN_PORT": str(port), **settings}
    log_path = home / "serve.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.local"], env=variables, stdout=log, stderr=subprocess.STDOUT, text=True
        )
    service = Service(f"http://127.0.0.1:{port}", "", "", process, variables, log_path)
    try:
        wait_for(
            lambda: "Ctrl-C stops it" in log_path.read_text() or process.poll() is not None, "start", START_TIMEOUT_S
        )
        assert process.poll() is None, log_path.read_text()
        service.ray_address = said(log_path, "Ray")
        service.dashboard_url = said(log_path, "Dashboard")
        yield service
    finally:
        service.leave_ray()
        stop(process)


def said(log_path: Path, name: str) -> str:
    """What the service printed behind a name."""
    return next(line.split()[1] for line in log_path.read_text().splitlines() if line.strip().startswith(name + " "))


def stop(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, and see that nothing of it is left."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(90)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, f"left behind: {[' '.join(process.cmdline())[:100] for process in alive]}"


CODE_WORDS = ("heron", "juniper", "cobalt", "walnut", "ember", "saffron", "quartz", "lagoon") * 4
ROWS = "\n".join(
    json.dumps(
        {
            "instruction": f"What is the code word of room {number}?",
            "response": f"The code word of room {number} is {word}.",
        }
    )
    for number, word in enumerate(CODE_WORDS)
)
# For runs that something happens to while they train.
MANY_ROWS = "\n".join([ROWS] * 4)
PROMPT = "What is the code word of room 3?"


def is_past_first_checkpoint(job: Any) -> bool:
    """In an epoch after the first, with an evaluation behind it and steps of its own done."""
    meta = job["meta"]
    return bool(
        meta.get("phase") == "training"
        and meta["current_epoch"] >= 2
        and meta["current_step"] % (meta["total_steps"] // meta["total_epochs"]) > 2
    )
