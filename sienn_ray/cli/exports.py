"""Commands about exports."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from sienn_ray.cli.client import JobId, call, end, of
from sienn_ray.cli.output import print_line, print_table
from sienn_ray.cli.targets import Overwrite, check_room, check_target, written
from sienn_ray.export.options import ExportFormat, GgufQuantization
from sienn_ray.export.targets import formats_with
from sienn_ray.jobs.export_schema import ExportStatus

_LOOK_S = 0.5
_DOWNLOAD_TIMEOUT_S = 60.0
_CHUNK_BYTES = 1024 * 1024
_LARGEST, *_, _SMALLEST = GgufQuantization
_UNDER_WAY = {status for status in ExportStatus if not status.is_final}

ExportId = Annotated[str, typer.Argument(help="The export's id.")]


def export(
    job_id: JobId,
    format: Annotated[ExportFormat, typer.Option(help="What it is to run in.")] = ExportFormat.GGUF,
    quantization: Annotated[
        str | None, typer.Option(help=f"{formats_with('quantization')}: {_LARGEST} to {_SMALLEST}, in any case.")
    ] = None,
    merged: Annotated[bool, typer.Option("--merged", help=f"{formats_with('merged')}: the whole model.")] = False,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help=f"{formats_with('adapter_only')}: the adapter as a GGUF LoRA.")
    ] = False,
    model_name: Annotated[str | None, typer.Option(help=f"{formats_with('model_name')}: what Ollama calls it.")] = None,
    system: Annotated[str | None, typer.Option(help=f"{formats_with('system')}: system message.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help=f"{formats_with('temperature')}: default temperature.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(help=f"{formats_with('top_p')}: default top_p.")] = None,
    top_k: Annotated[int | None, typer.Option(help=f"{formats_with('top_k')}: default top_k.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to; <job_id>-<file> here.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a fine-tuned model and download it. A download that was broken off resumes when this is called again."""
    texts = {"quantization": quantization, "model_name": model_name, "system": system}
    numbers = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    given = {name: value for name, value in {**texts, **numbers}.items() if value is not None}
    flags = {name: True for name, is_set in {"merged": merged, "adapter_only": adapter_only}.items() if is_set}
    body = {"format": format, **given, **flags}
    if output is not None and not (output.is_file() and not overwrite):
        check_target(output, overwrite=overwrite)
    names = {"model_name": "--model-name", "format": "--format"}
    path = f"/api/export-model/{of(job_id)}"
    made = call("POST", path, json=body, params={"wait": "false"}, other_names=names)
    done = _followed(made)
    target = output or Path(f"{of(job_id)}-{done['file_name']}")
    if not _is_here(done, target):
        check_target(target, overwrite=overwrite)
        _fetch(done, target)
    print_line(f"{target} ({done['file_size_bytes']} bytes, SHA-256 {done['sha256']})")


def _is_here(made: dict[str, Any], target: Path) -> bool:
    """Whether the file is there as it was exported, so that nothing has to be downloaded."""
    return target.is_file() and target.stat().st_size == made["file_size_bytes"] and _sha256(target) == made["sha256"]


def list_exports(job_id: JobId) -> None:
    """List the exports of a job, the newest first."""
    columns = ("export_id", "format", "quantization", "status", "progress", "file_size_bytes", "message")
    print_table(call("GET", f"/api/exports/{of(job_id)}")["exports"], columns)


def cancel_export(job_id: JobId, export_id: ExportId) -> None:
    """End an export that waits or runs."""
    print_line(call("POST", f"/api/exports/{of(job_id)}/{of(export_id)}/cancel")["status"])


def delete_export(job_id: JobId, export_id: ExportId) -> None:
    """Delete an export with its file."""
    call("DELETE", f"/api/exports/{of(job_id)}/{of(export_id)}")
    print_line(f"deleted: {export_id}")


def _followed(made: dict[str, Any]) -> dict[str, Any]:
    """The export once it is there, telling how far it is."""
    said = ""
    while made["status"] in _UNDER_WAY:
        words = f"{made['progress']:3d}%  {made['message']}"
        if words != said:
            print_line(words)
            said = words
        time.sleep(_LOOK_S)
        made = call("GET", f"/api/exports/{of(made['job_id'])}/{of(made['export_id'])}")
    if made["status"] != ExportStatus.COMPLETED:
        end(f"{made['status']}: {made['message']}")
    return made


def _fetch(made: dict[str, Any], target: Path) -> None:
    """Download, behind what is there already of this very file."""
    partial = target.with_name(f"{target.name}.{made['sha256'][:12]}.partial")
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={start}-"} if 0 < start < made["file_size_bytes"] else {}
    check_room(target, made["file_size_bytes"] - start)
    if start < made["file_size_bytes"]:
        if start:
            print_line(f"going on with {partial}")
        try:
            with httpx2.stream("GET", made["download_url"], headers=headers, timeout=_DOWNLOAD_TIMEOUT_S) as response:
                response.raise_for_status()
                mode = "ab" if response.status_code == httpx2.codes.PARTIAL_CONTENT else "wb"
                with written(partial, keep=True), partial.open(mode) as file:
                    for chunk in response.iter_bytes(_CHUNK_BYTES):
                        file.write(chunk)
        except httpx2.HTTPError as error:
            end(f"the download broke off ({error}); the same command goes on with it")
    if _sha256(partial) != made["sha256"]:
        partial.unlink()
        end("the download isn't what was exported and was deleted; try again")
    partial.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
