"""Commands about datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sienn_ray.catalog import CATALOG
from sienn_ray.cli.client import DatasetId, call, end, of
from sienn_ray.cli.output import print_json, print_line, print_table
from sienn_ray.cli.wording import in_own_words
from sienn_ray.training.config import DEFAULT_ROW_TOKENS

_DatasetFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, JSON, JSONL or text.")]
_Encoding = Annotated[str | None, typer.Option(help="Encoding of the file where it isn't UTF-8, such as windows-1252.")]
_Separator = Annotated[
    str | None,
    typer.Option(help="Separator of a CSV file's columns: comma, semicolon, tab or pipe; told from the file."),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(help="Columns by the names that they stand for, as in Frage=question,Antwort=answer, or as JSON."),
]


def upload(
    file: _DatasetFile, encoding: _Encoding = None, separator: _Separator = None, columns: _Columns = None
) -> None:
    """Upload a dataset."""
    dataset = _send("/api/upload-dataset", file, encoding, separator, columns)
    print_line(f"{dataset['num_rows']} rows, format {dataset['format']}")
    _print_reading(dataset)
    if dataset.get("duplicate_of"):
        print_line(f"the same bytes as dataset {dataset['duplicate_of']}")
    print_line(f"dataset_id: {dataset['dataset_id']}")


def validate(
    file: _DatasetFile, encoding: _Encoding = None, separator: _Separator = None, columns: _Columns = None
) -> None:
    """Check a dataset file without keeping it: the first bad rows, by line."""
    report = _send("/api/validate-dataset", file, encoding, separator, columns)
    _print_reading(report)
    for error in report["errors"]:
        print_line(in_own_words(error["message"]))
    if not report["valid"]:
        end(f"{file} can't be used: {report['num_bad_rows']} bad rows of {report['num_rows']}")
    print_line(f"valid: {report['num_rows']} rows")


def _send(path: str, file: Path, encoding: str | None, separator: str | None, columns: list[str] | None) -> Any:
    given = {"encoding": encoding, "separator": separator, "columns": columns}
    with file.open("rb") as stream:
        data = {name: value for name, value in given.items() if value}
        return call("POST", path, files={"file": (file.name, stream)}, data=data)


def _print_reading(answer: dict[str, Any]) -> None:
    """Say how the file was read, where that isn't plain."""
    for name, value in answer.get("guessed", {}).items():
        print_line(f"guessed {name}: {value!r}" if name == "separator" else f"guessed {name}: {value}")
    if ignored := answer.get("ignored_columns"):
        print_line(f"ignored columns: {', '.join(ignored)}")
    for note in answer.get("notes", ()):
        print_line(f"note: {note}")


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
