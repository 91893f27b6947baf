"""The `sienn` command: serve, and everything that the REST API offers, from a shell."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx2
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from sienn_ray.catalog import CATALOG

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="LoRA fine-tuning of language models on Ray.",
)
console = Console()

_POLL_S = 1.0
_CONNECT_TIMEOUT_S = 5.0
# Loading a base model and generating may take minutes; an upload takes as long as it takes.
_READ_TIMEOUT_S = 900.0

JobId = Annotated[str, typer.Argument(help="The job's id.")]


def _default_url() -> str:
    return os.environ.get("SIENN_URL") or f"http://127.0.0.1:{os.environ.get('SIENN_PORT', '8000')}"


@contextmanager
def _answer(method: str, path: str, **options: Any) -> Iterator[httpx2.Response]:
    """Ask the service; ends the program with the service's own words when it refuses."""
    url = _default_url()
    timeout = httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    try:
        with httpx2.stream(method, url + path, timeout=timeout, **options) as response:
            if response.is_error:
                response.read()
                _end(_detail(response))
            yield response
    except httpx2.HTTPError as error:
        _end(f"{url} doesn't answer ({error}); start it with `sienn serve`, or set SIENN_URL")


def _call(method: str, path: str, **options: Any) -> Any:
    """Ask the service and return its JSON."""
    with _answer(method, path, **options) as response:
        return json.loads(response.read())


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:500]}"


def _end(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Serve on this machine, in the foreground (--host, --port, --home)."""
    # Another program, not an import: the composition root is above this layer, and Ctrl-C goes to it directly.
    os.execv(sys.executable, [sys.executable, "-m", "deployments.local", *context.args])  # noqa: S606


@app.command()
def upload(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, JSON or JSONL.")]) -> None:
    """Upload a dataset."""
    with file.open("rb") as stream:
        dataset = _call("POST", "/api/upload-dataset", files={"file": (file.name, stream)})
    console.print(f"{dataset['num_rows']} rows, format {dataset['format']}")
    console.print(f"dataset_id: {dataset['dataset_id']}", soft_wrap=True)


@app.command()
def datasets() -> None:
    """List the datasets."""
    rows = _call("GET", "/api/datasets")["datasets"]
    _table(rows, ("id", "filename", "format", "num_rows", "size_bytes", "created_at"))


@app.command()
def models() -> None:
    """List the base models of the catalog."""
    _table(_call("GET", "/api/models/available")["models"], ("id", "name", "vram_required_gb", "is_cached"))


@app.command()
def train(
    dataset_id: Annotated[str, typer.Argument(help="The dataset's id.")],
    base_model: Annotated[str, typer.Option(help="Hub id of the base model.")] = CATALOG[0].id,
    learning_rate: Annotated[float, typer.Option(help="1e-5 to 1e-3.")] = 2e-4,
    num_epochs: Annotated[int, typer.Option(help="1 to 10.")] = 3,
    batch_size: Annotated[int, typer.Option(help="1 to 32.")] = 4,
    max_length: Annotated[int, typer.Option(help="128 to 2048.")] = 512,
    wait: Annotated[bool, typer.Option(help="Watch it until it ends.")] = True,
) -> None:
    """Start a fine-tune."""
    body = {
        "dataset_id": dataset_id,
        "model_name": base_model,
        "learning_rate": learning_rate,
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "max_length": max_length,
    }
    job_id = _call("POST", "/api/start-finetuning", json=body)["job_id"]
    console.print(f"job_id: {job_id}", soft_wrap=True)
    if wait:
        watch(job_id)


@app.command()
def jobs() -> None:
    """List the jobs."""
    _table(_call("GET", "/api/jobs")["jobs"], ("job_id", "status", "progress", "message", "created_at"))


@app.command()
def status(job_id: JobId) -> None:
    """Show all that is known of a job."""
    console.print_json(json.dumps(_call("GET", f"/api/training-status/{job_id}")))


@app.command()
def watch(job_id: JobId) -> None:
    """Follow a job until it ends: epoch, loss and time left."""
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"), console=console,
    ) as bar:  # fmt: skip
        row = bar.add_task("waiting", total=100, facts="")
        while True:
            job = _call("GET", f"/api/training-status/{job_id}")
            bar.update(row, completed=job["progress"], description=job["message"][:60], facts=_facts(job["meta"]))
            if job["status"] in {"completed", "failed"}:
                break
            time.sleep(_POLL_S)
    if job["status"] == "failed":
        _end(f"the job failed ({job['meta'].get('failure_reason')}): {job['message']}")


def _facts(meta: dict[str, Any]) -> str:
    """Loss, speed and time left of a running job, as far as they are known."""
    loss, speed, left = (meta.get(name) for name in ("current_loss", "tokens_per_s", "time_left_s"))
    parts = [
        f"epoch {meta['current_epoch']}/{meta['total_epochs']}" if meta["current_epoch"] else "",
        f"loss {loss:.3f}" if loss is not None else "",
        f"eval loss {meta['eval_loss']:.3f}" if meta.get("eval_loss") is not None else "",
        f"{speed:.0f} tokens/s" if speed else "",
        f"{int(left) // 60}:{int(left) % 60:02d} left" if left else "",
    ]
    return "  ".join(part for part in parts if part)


@app.command()
def ask(
    job_id: JobId,
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    base: Annotated[bool, typer.Option("--base", help="Ask the base model without the adapter.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="10 to 2000.")] = 200,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token each time.")] = False,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
) -> None:
    """Ask a fine-tuned model."""
    body = {"job_id": job_id, "prompt": prompt, "max_new_tokens": max_new_tokens, "use_adapter": not base}
    answer = _call("POST", "/api/test-model", json={**body, "do_sample": not greedy, "seed": seed})
    sys.stdout.write(answer["generated_text"] + "\n")


@app.command()
def download(
    job_id: JobId, output: Annotated[Path | None, typer.Option(help="Where to; model_<job_id>.zip.")] = None
) -> None:
    """Download an adapter as ZIP."""
    target = output or Path(f"model_{job_id}.zip")
    partial = target.with_name(target.name + ".partial")
    with _answer("GET", f"/api/download-model/{job_id}") as response, partial.open("wb") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
    partial.replace(target)
    console.print(f"{target} ({target.stat().st_size} bytes)", soft_wrap=True, markup=False)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    table = Table(box=None)
    for place, column in enumerate(columns):
        # An id is there to be copied, so it is never cut.
        table.add_column(column, no_wrap=place == 0, overflow="fold" if place == 0 else "ellipsis")
    for row in rows:
        table.add_row(*(escape(str(row[column])) for column in columns))  # a file name may look like markup
    console.print(table)


if __name__ == "__main__":
    app()
