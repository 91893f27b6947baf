"""Commands about datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sienn_ray.catalog import CATALOG
from sienn_ray.cli.client import DatasetId, call, end, of
from sienn_ray.cli.output import print_json, print_line, print_table
from sienn_ray.training.config import DEFAULT_ROW_TOKENS

_DatasetFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, JSON, JSONL or text.")]


def upload(file: _DatasetFile) -> None:
    """Upload a dataset."""
    with file.open("rb") as stream:
        dataset = call("POST", "/api/upload-dataset", files={"file": (file.name, stream)})
    print_line(f"{dataset['num_rows']} rows, format {dataset['format']}")
    if dataset.get("duplicate_of"):
        print_line(f"the same bytes as dataset {dataset['duplicate_of']}")
    print_line(f"dataset_id: {dataset['dataset_id']}")


def validate(file: _DatasetFile) -> None:
    """Check a dataset file without keeping it: the first bad rows, by line."""
    with file.open("rb") as stream:
        report = call("POST", "/api/validate-dataset", files={"file": (file.name, stream)})
    for error in report["errors"]:
        print_line(error["message"])
    if not report["valid"]:
        end(f"{file} can't be used: {report['num_bad_rows']} bad rows of {report['num_rows']}")
    print_line(f"valid: {report['num_rows']} rows")


def list_datasets() -> None:
    """List the datasets."""
    rows = call("GET", "/api/datasets")["datasets"]
    print_table(rows, ("id", "filename", "format", "num_rows", "size_bytes", "created_at"))


def dataset(dataset_id: DatasetId) -> None:
    """Show all that is known of a dataset."""
    print_json(call("GET", f"/api/datasets/{of(dataset_id)}"))


def statistics(
    dataset_id: DatasetId,
    base_model: Annotated[str, typer.Option(help="Base model whose tokens are counted.")] = CATALOG[0].id,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the base model; by default its main branch.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens in one row, to see how many have more.")] = DEFAULT_ROW_TOKENS,
) -> None:
    """Count a dataset's rows, tokens, duplicates and empty fields."""
    query: dict[str, Any] = {"model_name": base_model, "max_length": max_length}
    if revision is not None:
        query["revision"] = revision
    print_json(call("GET", f"/api/datasets/{of(dataset_id)}/statistics", params=query))


def delete_dataset(dataset_id: DatasetId) -> None:
    """Delete a dataset that no job uses."""
    call("DELETE", f"/api/datasets/{of(dataset_id)}")
    print_line(f"deleted: {dataset_id}")
