"""Commands about datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sienn_ray.catalog import CATALOG
from sienn_ray.cli.client import DatasetId, call, end, of
from sienn_ray.cli.output import print_json, print_line, print_table
from sienn_ray.cli.sampling import RowSpecialTokens, RowVariables
from sienn_ray.cli.wording import in_own_words
from sienn_ray.datasets.hub_source import PREFIX
from sienn_ray.datasets.reading_options import options_of
from sienn_ray.errors import InvalidInputError
from sienn_ray.training.config import DEFAULT_ROW_TOKENS

_DatasetFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="CSV, JSON, JSONL, Parquet or text, packed or not.")
]
_Encoding = Annotated[str | None, typer.Option(help="Encoding of the file where it isn't UTF-8, such as windows-1252.")]
_Separator = Annotated[
    str | None,
    typer.Option(help="Separator of a CSV file's columns: comma, semicolon, tab or pipe; told from the file."),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(help="Columns by the names that they stand for, as in Frage=question,Antwort=answer, or as JSON."),
]

_MAX_SHOWN_CHARS = 160


def upload(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|hf:OWNER/NAME",
            help="CSV, JSON, JSONL or text; or a dataset on the Hugging Face hub, with /CONFIG, :SPLIT and @REVISION "
            "behind it where they are needed.",
        ),
    ],
    encoding: _Encoding = None,
    separator: _Separator = None,
    columns: _Columns = None,
) -> None:
    """Upload a dataset, or have the service import one from the Hugging Face hub."""
    if file.startswith(PREFIX):
        dataset = _import(file, encoding, separator, columns)
    else:
        dataset = _send("/api/upload-dataset", _existing(file), encoding, separator, columns)
    print_line(f"{dataset['num_rows']} rows, format {dataset['format']}")
    if dataset.get("source_revision"):
        print_line(f"from {dataset['source']} at commit {dataset['source_revision']}")
    _print_reading(dataset)
    if dataset.get("duplicate_of"):
        print_line(f"the same bytes as dataset {dataset['duplicate_of']}")
    print_line(f"dataset_id: {dataset['dataset_id']}")


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise typer.BadParameter(f"File '{name}' does not exist, or is none.", param_hint="'FILE'")
    return path


def _import(source: str, encoding: str | None, separator: str | None, columns: list[str] | None) -> Any:
    given = {"encoding": encoding, "separator": separator}
    body: dict[str, Any] = {name: value for name, value in given.items() if value}
    try:
        renamed = dict(options_of({"columns": columns or []}).columns)
    except InvalidInputError as error:
        end(error.message)
    if renamed:
        body["columns"] = renamed
    return call("POST", "/api/import-dataset", json={"source": source, **body})


def validate(
    file: _DatasetFile, encoding: _Encoding = None, separator: _Separator = None, columns: _Columns = None
) -> None:
    """Check a dataset file without keeping it: the first bad rows, by line."""
    report = _send("/api/validate-dataset", file, encoding, separator, columns)
    _print_reading(report)
    for error in report["errors"]:
        print_line(in_own_words(error["message"]))
    if not report["valid"]:
        num_bad, num_rows = report["num_bad_rows"], report["num_rows"]
        end(f"{file} can't be used" + (f": {num_bad} bad rows of {num_rows}" if num_bad else ""))
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
    chat_template_kwargs: RowVariables = None,
    special_tokens: RowSpecialTokens = None,
) -> None:
    """Count a dataset's rows, tokens, duplicates and empty fields."""
    query: dict[str, Any] = {"model_name": base_model, "max_length": max_length}
    given = {"revision": revision, "chat_template_kwargs": chat_template_kwargs, "special_tokens": special_tokens}
    query |= {name: value for name, value in given.items() if value is not None}
    print_json(call("GET", f"/api/datasets/{of(dataset_id)}/statistics", params=query))


def append_dataset(
    dataset_id: DatasetId,
    file: _DatasetFile,
    encoding: _Encoding = None,
    separator: _Separator = None,
    columns: _Columns = None,
) -> None:
    """Add a version of a dataset that has the newest one's rows, and behind them a file's."""
    _add_version(dataset_id, "append", file, encoding, separator, columns)


def replace_dataset(
    dataset_id: DatasetId,
    file: _DatasetFile,
    encoding: _Encoding = None,
    separator: _Separator = None,
    columns: _Columns = None,
) -> None:
    """Add a version of a dataset that has a file's rows alone."""
    _add_version(dataset_id, "replace", file, encoding, separator, columns)


def _add_version(
    dataset_id: str,
    change: str,
    file: Path,
    encoding: str | None,
    separator: str | None,
    columns: list[str] | None,
) -> None:
    versions = f"/api/datasets/{of(dataset_id)}/versions"
    # Named, so that the rows aren't put behind a version that somebody else has made meanwhile.
    newest = call("GET", versions)["versions"][-1]["version"]
    path = f"{versions}?change={change}&base_version={newest}"
    dataset = _send(path, file, encoding, separator, columns)
    _print_reading(dataset)
    print_line(f"version {dataset['version']} of dataset {dataset['version_of']}: {dataset['num_rows']} rows")
    print_line(f"dataset_id: {dataset['dataset_id']}")


def dataset_versions(dataset_id: DatasetId) -> None:
    """List a dataset's versions, the first one first."""
    rows = call("GET", f"/api/datasets/{of(dataset_id)}/versions")["versions"]
    print_table(rows, ("version", "id", "change", "filename", "num_rows", "size_bytes", "created_at"))


def diff_dataset(
    dataset_id: DatasetId,
    from_version: Annotated[
        int | None, typer.Option(help="The earlier version; by default the one before the later.")
    ] = None,
    to_version: Annotated[int | None, typer.Option(help="The later version; by default the newest.")] = None,
) -> None:
    """Count the rows that were added, removed or changed between two versions, and show the first of them."""
    asked = {"from_version": from_version, "to_version": to_version}
    query = {name: number for name, number in asked.items() if number is not None}
    found = call("GET", f"/api/datasets/{of(dataset_id)}/diff", params=query)
    print_line(f"version {found['from_version']} to version {found['to_version']}")
    for kind in ("added", "removed", "changed", "same"):
        print_line(f"{kind}: {found[f'num_{kind}']} rows")
    for sign, rows in (("+", found["added"]), ("-", found["removed"])):
        for row in rows:
            print_line(f"{sign} {row['row']}: {_shown(row)}")
    for pair in found["changed"]:
        print_line(f"~ {pair['before']['row']}: {_shown(pair['before'])}")
        print_line(f"  {pair['after']['row']}: {_shown(pair['after'])}")


def _shown(row: dict[str, Any]) -> str:
    """A row on one line, cut."""
    texts = [row["text"]] if row["messages"] is None else [each["content"] for each in row["messages"]]
    line = " | ".join(" ".join(text.split()) for text in texts if text)
    return line if len(line) <= _MAX_SHOWN_CHARS else f"{line[:_MAX_SHOWN_CHARS]}…"


def delete_dataset(dataset_id: DatasetId) -> None:
    """Delete a dataset that no job uses."""
    call("DELETE", f"/api/datasets/{of(dataset_id)}")
    print_line(f"deleted: {dataset_id}")
