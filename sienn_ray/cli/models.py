"""Commands about base models and adapters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sienn_ray.cli.client import JobId, answer, call, end, events, of
from sienn_ray.cli.output import print_line, print_table


def list_models() -> None:
    """List the base models of the catalog."""
    print_table(call("GET", "/api/models/available")["models"], ("id", "name", "vram_required_gb", "is_cached"))


def ask(
    job_id: JobId,
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    base: Annotated[bool, typer.Option("--base", help="Ask the base model without the adapter.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="10 to 2000.")] = 200,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token each time.")] = False,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
) -> None:
    """Ask a fine-tuned model; prints its answer as it comes."""
    body = {"job_id": job_id, "prompt": prompt, "max_new_tokens": max_new_tokens, "use_adapter": not base}
    sampling = {"do_sample": not greedy, "seed": seed}
    for name, data in events("/api/test-model", {**body, **sampling, "stream": True}):
        sys.stdout.write("\n" if name else data["text"])
        sys.stdout.flush()
        if name == "error":
            end(data["detail"])


def compare(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of up to four jobs of one base model.")],
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    max_new_tokens: Annotated[int, typer.Option(help="10 to 2000.")] = 200,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token each time.")] = False,
    seed: Annotated[int | None, typer.Option(help="Makes sampled answers repeatable.")] = None,
) -> None:
    """Ask adapters and their base model the same."""
    body = {"job_ids": job_ids, "prompt": prompt, "max_new_tokens": max_new_tokens}
    reply = call("POST", "/api/compare-models", json={**body, "do_sample": not greedy, "seed": seed})
    for each in reply["answers"]:
        print_line(f"=== {each['job_id'] or reply['base_model']}")
        sys.stdout.write(_said(each) + "\n\n")


def _said(answer: dict[str, Any]) -> str:
    error = answer.get("error")
    return str(answer["generated_text"]) if error is None else f"error: {error['detail']}"


def download(
    job_id: JobId, output: Annotated[Path | None, typer.Option(help="Where to; model_<job_id>.zip.")] = None
) -> None:
    """Download an adapter as ZIP."""
    target = output or Path(f"model_{job_id}.zip")
    partial = target.with_name(target.name + ".partial")
    with answer("GET", f"/api/download-model/{of(job_id)}") as response, partial.open("wb") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
    partial.replace(target)
    print_line(f"{target} ({target.stat().st_size} bytes)")
