"""The whole path, start to end: serve, upload, fine-tune, compare, download, stop.

Run it with `make demo`, or with `SIENN_AUTH=on make demo` to have every request need a key. It keeps its files in
SIENN_HOME (`.demo` unless that is set).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess  # nosec B404 # no shell, and no words of users
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from safetensors.numpy import load

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
EXAMPLES = Path(__file__).parent
DATASET = EXAMPLES / "kestrel-ferry.jsonl"
QUESTIONS = EXAMPLES / "kestrel-ferry-questions.json"
# The rate is the highest that is allowed: 72 rows have to be learned by heart in a few passes.
TRAINING = {"model_name": BASE_MODEL, "num_epochs": 3, "learning_rate": 1e-3, "batch_size": 4, "max_length": 128}
GENERATION = {"max_new_tokens": 40, "do_sample": False, "repetition_penalty": 1.1}
START_TIMEOUT_S = 120.0

console = Console()


def main() -> int:
    started = time.monotonic()
    home = Path(os.environ.get("SIENN_HOME", ".demo")).absolute()
    port = int(os.environ.get("SIENN_PORT") or free_port())
    console.rule("1. Start the service")
    with service(home, port) as url, httpx2.Client(base_url=url, timeout=600.0, headers=credentials(home)) as client:
        console.rule("2. Upload a dataset")
        dataset = upload(client)
        console.rule("3. Fine-tune")
        job_id = fine_tune(client, dataset["dataset_id"])
        console.rule("4. Ask the base model and the adapter what neither was shown in these words")
        learned = compare(client, job_id)
        console.rule("5. Download")
        check_archive(client, job_id, home)
        console.print(
            f"\nAPI docs: {url}/docs   `make serve` starts the service again; it prints where the dashboard is."
        )
    console.print(
        f"Stopped everything; {time.monotonic() - started:.0f} s in all. Files are in {home}.", soft_wrap=True
    )
    return 0 if learned else 1


@contextlib.contextmanager
def service(home: Path, port: int) -> Iterator[str]:
    """The service in a process of its own, as `sienn serve` starts it; stopped at the end."""
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "SIENN_HOME": str(home), "SIENN_PORT": str(port)}
    home.mkdir(parents=True, exist_ok=True)
    log_path = home / "serve.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # nosec B603 # no shell, and no words of users
            [sys.executable, "-m", "sienn_ray.cli", "serve"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until_healthy(url, process, log_path)
        sys.stdout.write(log_path.read_text()[log_path.read_text().find("sienn_ray is ready") :])
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{url}/health").is_success and "sienn_ray is ready" in log_path.read_text():
                return
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the service didn't start:\n{log_path.read_text()[-3000:]}")
        time.sleep(0.5)


def credentials(home: Path) -> dict[str, str]:
    """The admin's key, where SIENN_AUTH=on has the service ask for one; it makes one at its first start."""
    key_file = home / "admin-key"
    key = os.environ.get("SIENN_ADMIN_KEY") or (key_file.read_text().strip() if key_file.exists() else "")
    return {"X-API-Key": key} if key else {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def checked(response: httpx2.Response) -> Any:
    if response.is_error:
        sys.exit(f"{response.request.method} {response.request.url}: {response.text}")
    return response.json()


def upload(client: httpx2.Client) -> Any:
    with DATASET.open("rb") as file:
        dataset = checked(client.post("/api/upload-dataset", files={"file": (DATASET.name, file)}))
    console.print(f"{dataset['filename']}: {dataset['num_rows']} rows, format {dataset['format']}, for example")
    for row in dataset["preview"][:2]:
        console.print(f"  [cyan]{row['instruction']}[/]  {row['response']}")
    return dataset


def fine_tune(client: httpx2.Client, dataset_id: str) -> str:
    job_id: str = checked(client.post("/api/start-finetuning", json={"dataset_id": dataset_id, **TRAINING}))["job_id"]
    columns = (TextColumn("{task.description:<32}"), BarColumn(10), TextColumn("{task.percentage:3.0f}%"))
    with Progress(*columns, TextColumn("{task.fields[facts]}"), TimeElapsedColumn(), console=console) as bar:
        row = bar.add_task("Waiting", total=100, facts="")
        while True:
            job = checked(client.get(f"/api/training-status/{job_id}"))
            bar.update(row, completed=job["progress"], description=job["message"][:32], facts=facts(job["meta"]))
            if job["status"] in ("completed", "failed"):
                break
            time.sleep(1.0)
    if job["status"] == "failed":
        sys.exit(f"the fine-tune failed: {job['message']}")
    losses = [f"{record['eval_loss']:.2f}" for record in job["meta"]["loss_history"]]
    console.print(f"Loss on held-out rows, before the first epoch and after each: {' → '.join(losses)}")
    return job_id


def facts(meta: dict[str, Any]) -> str:
    if meta.get("current_loss") is None:
        return ""
    left = int(meta.get("time_left_s") or 0)
    return f"loss {meta['current_loss']:.3f}  {left // 60}:{left % 60:02d} left"


def compare(client: httpx2.Client, job_id: str) -> bool:
    """Print both answers side by side; says whether the adapter knows more."""
    table = Table("question", "base model", "adapter", show_lines=True)
    known = {"base model": 0, "adapter": 0}
    questions = json.loads(QUESTIONS.read_text())
    for question in questions:
        answers = [ask(client, job_id, question["question"], use_adapter=use_adapter) for use_adapter in (False, True)]
        cells = []
        for name, answer in zip(known, answers, strict=True):
            is_right = question["expected"].lower() in answer.lower()
            known[name] += is_right
            cells.append(f"[{'green' if is_right else 'red'}]{escape(answer)}[/]")
        table.add_row(question["question"], *cells)
    console.print(table)
    scores = ", ".join(f"{name} {count} of {len(questions)}" for name, count in known.items())
    console.print(f"Right answers: {scores}")
    return known["adapter"] > max(known["base model"], len(questions) // 2)


def ask(client: httpx2.Client, job_id: str, prompt: str, *, use_adapter: bool) -> str:
    body = {"job_id": job_id, "prompt": prompt, "use_adapter": use_adapter, **GENERATION}
    return str(checked(client.post("/api/test-model", json=body))["generated_text"]).replace("\n", " ")


def check_archive(client: httpx2.Client, job_id: str, home: Path) -> None:
    """Open the ZIP and read the weights as any program would."""
    response = client.get(f"/api/download-model/{job_id}")
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    if damaged := archive.testzip():
        sys.exit(f"{damaged} is damaged in the archive")
    weights = load(archive.read("adapter_model.safetensors"))
    config = json.loads(archive.read("adapter_config.json"))
    path = home / f"model_{job_id}.zip"
    path.write_bytes(response.content)
    console.print(f"{path}", soft_wrap=True)
    console.print(f"  {', '.join(sorted(archive.namelist()))}")
    numbers = sum(tensor.size for tensor in weights.values())
    console.print(f"  {len(weights)} tensors, {numbers:,} numbers, for {config['base_model_name_or_path']}")


if __name__ == "__main__":
    sys.exit(main())
