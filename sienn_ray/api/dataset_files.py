"""Dataset files in requests: the form that they come in, and their check."""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import Any

from sienn_ray.api.deps import Backends
from sienn_ray.api.http.multipart import ReceivedFile
from sienn_ray.api.http.uploads import Uploads
from sienn_ray.datasets import intake
from sienn_ray.datasets.ingest import IngestReport
from sienn_ray.datasets.reading_options import options_of
from sienn_ray.jobs.schema import DatasetRecord

_FILE: dict[str, Any] = {
    "type": "string",
    "format": "binary",
    "description": "A file whose name ends with `.csv`, `.tsv`, `.json`, `.jsonl`, `.ndjson`, `.parquet` or `.txt`, "
    "maybe with `.gz` or `.zst` behind it.",
    "examples": ["instruction,response\nWhat is Python?,A programming language.\n"],
}
_ENCODING: dict[str, Any] = {
    "type": "string",
    "description": "The file's encoding where it isn't UTF-8, such as `windows-1252`, `iso-8859-1` or `utf-16`.",
    "examples": ["windows-1252"],
}
_SEPARATOR: dict[str, Any] = {
    "type": "string",
    "description": "The separator of a CSV file's columns: `,`, `;`, `|` or a tab, or its name (`comma`, `semicolon`, "
    "`pipe`, `tab`). Told from the first line where it isn't given.",
    "examples": [";"],
}
_COLUMNS: dict[str, Any] = {
    "type": "string",
    "description": "Columns of the file by the names that they stand for: a JSON object, or `name=name` pairs with "
    "commas between.",
    "examples": ['{"Frage": "question", "Antwort": "answer"}', "Frage=question,Antwort=answer"],
}
_FIELDS: dict[str, Any] = {"file": _FILE, "encoding": _ENCODING, "separator": _SEPARATOR, "columns": _COLUMNS}
MULTIPART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A form with one file, as `curl -F file=@dataset.csv` sends it, and, where it is needed, "
        "with how to read the file, in any order.",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": _FIELDS},
            }
        },
    }
}
REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


async def checked_record(
    received: ReceivedFile, dataset_id: str, owner: str, backends: Backends, uploads: Uploads
) -> DatasetRecord:
    """Check a file that has been received, write its rows beside it, and return its record.

    Raises:
        InvalidDatasetError: The file isn't a dataset.
        InvalidInputError: The form's fields say how to read it in a way that can't be.
    """
    options = options_of(received.fields)

    def check(abandoned: threading.Event) -> IngestReport:
        return intake.check_rows(
            backends.storage,
            dataset_id,
            received.filename,
            max_row_bytes=backends.settings.max_row_bytes,
            options=options,
            abandoned=abandoned,
        )

    return DatasetRecord.of_report(
        dataset_id,
        received.filename,
        received.size_bytes,
        received.sha256,
        await uploads.check(check),
        owner,
        options=options,
        remarks=received.remarks,
    )
