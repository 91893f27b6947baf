from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray.datasets import dataset_keys
from sienn_ray.errors import TooLateError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import BOUNDARY, Part, multipart_body, multipart_type
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.conftest import MAX_UPLOAD_BYTES
from tests.unit.api.uploading import CSV, UPLOAD, VALIDATE, is_untouched, send, upload

TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def test_upload_answers_as_the_contract_says(client: TestClient) -> None:
    response = upload(client, CSV, "conversations.csv")
    body = response.json()
    assert response.status_code == 201
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body.pop("dataset_id"))
    assert re.fullmatch(TIMESTAMP, body.pop("created_at"))
    assert body == {
        "filename": "conversations.csv",
        "size_bytes": len(CSV),
        "status": "uploaded",
        "preview": [
            {"instruction": "What is Python?", "response": "A language."},
            {"instruction": "Explain LoRA", "response": "A technique."},
        ],
        "format": "instruction-response",
        "columns": ["instruction", "response"],
        "num_rows": 2,
        "sha256": hashlib.sha256(CSV).hexdigest(),
        "duplicate_of": None,
        "version": 1,
        "version_of": None,
        "change": None,
        "appended_to": None,
        "source": None,
        "source_revision": None,
        "guessed": {},
        "ignored_columns": [],
        "notes": [],
    }


def test_file_and_rows_are_in_storage(client: TestClient, storage: Storage) -> None:
    dataset_id = upload(client, CSV).json()["dataset_id"]
    assert storage.read_bytes(dataset_keys.file_key(dataset_id)) == CSV
    with storage.reading(dataset_keys.rows_key(dataset_id)) as file:
        assert pq.read_table(file).num_rows == 2


CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
ROWS: dict[str, dict[str, Any]] = {
    "instruction-response": {"instruction": "a", "response": "b"},
    "alpaca": {"instruction": "a", "input": "c", "output": "b"},
    "instruction-input-response": {"instruction": "a", "input": "c", "response": "b"},
    "prompt-completion": {"prompt": "a", "completion": "b"},
    "question-answer": {"question": "a", "answer": "b"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "chat": {"messages": CHAT},
    "text": {"text": "once upon a time"},
}


def as_csv(row: dict[str, Any]) -> bytes:
    return f"{','.join(row)}\n{','.join(row.values())}\n".encode()


def as_json(row: dict[str, Any]) -> bytes:
    return json.dumps([row]).encode()


def as_jsonl(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


WRITERS = {"csv": as_csv, "json": as_json, "jsonl": as_jsonl, "JSONL": as_jsonl}


@pytest.mark.parametrize(
    ("dataset_format", "extension"),
    [(name, extension) for name in ROWS for extension in WRITERS if (name, extension) != ("chat", "csv")],
)
def test_every_column_set_is_taken(client: TestClient, dataset_format: str, extension: str) -> None:
    row = ROWS[dataset_format]
    response = upload(client, WRITERS[extension](row), f"rows.{extension}")
    assert response.status_code == 201
    body = response.json()
    assert (body["format"], body["columns"], body["preview"]) == (dataset_format, list(row), [row])


@pytest.mark.parametrize(
    ("filename", "content", "detail"),
    [
        ("rows.csv", b"instruction,response\na,b\nc\n", "line 3: the row has 1 fields"),
        ("rows.csv", b"instruction,response\na,b\n\nc,\n", "line 4: column 'response' must not be blank"),
        ("rows.csv", b"instruction,response\na,b\nc,\xff\n", "line 3: "),
        ("rows.jsonl", b'{"text": "a"}\n{"text": 1}\n', "line 2: column 'text' must be a string, got a number"),
        ("rows.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: "),
        ("rows.json", b'[{"text": "a"}, {"text": " "}]', "row 2: column 'text' must not be blank"),
        ("rows.csv", b"a,b\n1,2\n", "unknown columns: found 'a', 'b'"),
        ("rows.csv", b"", "the file is empty"),
        ("rows.csv", b"instruction,response\n", "the file has no rows"),
        ("rows.jsonl", b"", "the file is empty"),
        ("rows.json", b"", "the file is empty"),
        ("rows.json", b"[]", "the file has no rows"),
        ("rows.xlsx", b"PK", "the extension '.xlsx' is not accepted; use one of .csv, .json, .jsonl"),
        ("rows", CSV, "a file without an extension is not accepted"),
    ],
)
def test_bad_file_is_refused_and_leaves_nothing(
    client: TestClient, storage: Storage, tracker: InProcessTracker, filename: str, content: bytes, detail: str
) -> None:
    response = upload(client, content, filename)
    assert response.status_code == 400
    assert detail in response.json()["detail"]
    assert is_untouched(storage, tracker)


def test_row_over_the_limit_is_refused(
    client: TestClient, app: FastAPI, storage: Storage, tracker: InProcessTracker
) -> None:
    backends = app.state.backends
    limited = backends.settings.model_copy(update={"max_row_bytes": 100})
    app.state.backends = dataclasses.replace(backends, settings=limited)
    response = upload(client, b"text\n" + b"a" * 200 + b"\n")
    assert response.status_code == 400
    assert "line 2: " in response.json()["detail"]
    assert is_untouched(storage, tracker)


@pytest.mark.parametrize("path", [UPLOAD, VALIDATE])
@pytest.mark.parametrize(
    ("content_type", "body", "status", "detail"),
    [
        ("application/json", b"{}", 415, "Content-Type 'application/json' is not multipart/form-data"),
        ("text/csv", CSV, 415, "is not multipart/form-data"),
        ("multipart/mixed; boundary=0e1d2c3b4a", multipart_body([Part(CSV)]), 415, "is not multipart/form-data"),
        ("multipart/form-data", multipart_body([Part(CSV)]), 400, "names no boundary"),
        ("multipart/form-data; boundary=", multipart_body([Part(CSV)]), 400, "names no boundary"),
        ("multipart/form-data; boundary=" + "b" * 300, multipart_body([Part(CSV)]), 400, "boundary"),
        ("multipart/form-data; boundary=other", multipart_body([Part(CSV)]), 400, "can't be parsed"),
        (multipart_type(), b"", 400, "no part named 'file'"),
        (multipart_type(), CSV, 400, "can't be parsed"),
        (multipart_type(), multipart_body([]), 400, "no part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV, name=b"dataset")]), 400, "no part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV, filename=None)]), 400, "no part named 'file' with a file name"),
        (multipart_type(), multipart_body([Part(CSV), Part(CSV)]), 400, "more than one part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV)], is_closed=False), 400, "ended before its closing boundary"),
        (multipart_type(), multipart_body([Part(CSV)])[:-6], 400, "ended before its closing boundary"),
        (multipart_type(), multipart_body([Part(CSV)])[:90], 400, "ended before its closing boundary"),
        (multipart_type(), multipart_body([Part(CSV)])[:30], 400, "no part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV, filename=b"a" * 40_000 + b".csv")]), 400, "header"),
        (multipart_type(), multipart_body([Part(b"x" * 200_000, filename=None)]), 413, "more than 100000 bytes"),
    ],
)
def test_bad_body_is_refused_and_leaves_nothing(
    client: TestClient,
    storage: Storage,
    tracker: InProcessTracker,
    content_type: str,
    body: bytes,
    status: int,
    detail: str,
    path: str,
) -> None:
    response = send(client, body, content_type, path)
    assert (response.status_code, response.json()["status_code"]) == (status, status)
    assert detail in response.json()["detail"]
    assert is_untouched(storage, tracker)


@pytest.mark.parametrize("path", [UPLOAD, VALIDATE])
def test_missing_content_type_is_refused(client: TestClient, path: str) -> None:
    response = client.post(path, content=multipart_body([Part(CSV)]))
    assert response.status_code == 415
    assert "multipart/form-data" in response.json()["detail"]


def rows_of(num_bytes: int) -> bytes:
    """A good dataset with exactly this many bytes."""
    row = b"abcdefghijklmnopqrstuvwxyz\n"
    head = b"text\n"
    num_rows, rest = divmod(num_bytes - len(head), len(row))
    return head + row * (num_rows - 1) + b"y" * (len(row) + rest - 1) + b"\n"


def test_file_as_large_as_the_limit_is_taken(client: TestClient) -> None:
    response = upload(client, rows_of(MAX_UPLOAD_BYTES))
    assert response.status_code == 201
    assert response.json()["size_bytes"] == MAX_UPLOAD_BYTES


def test_one_byte_more_is_refused(client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
    response = upload(client, rows_of(MAX_UPLOAD_BYTES + 1))
    assert response.status_code == 413
    assert response.json()["status_code"] == 413
    assert f"more than {MAX_UPLOAD_BYTES} bytes" in response.json()["detail"]
    assert is_untouched(storage, tracker)


def test_size_is_counted_where_none_is_declared(
    client: TestClient, storage: Storage, tracker: InProcessTracker
) -> None:
    body = multipart_body([Part(rows_of(MAX_UPLOAD_BYTES + 1))])
    request = client.build_request(
        "POST", UPLOAD, content=iter([body[:50_000], body[50_000:]]), headers={"content-type": multipart_type()}
    )
    assert "content-length" not in request.headers
    assert client.send(request).status_code == 413
    assert is_untouched(storage, tracker)


def test_chunked_upload_is_taken(client: TestClient) -> None:
    body = multipart_body([Part(CSV)])
    response = send(client, (body[start : start + 7] for start in range(0, len(body), 7)))
    assert response.status_code == 201
    assert response.json()["sha256"] == hashlib.sha256(CSV).hexdigest()


def test_declared_size_over_the_limit_is_refused_before_the_body_is_parsed(
    client: TestClient, storage: Storage, tracker: InProcessTracker
) -> None:
    response = send(client, b"not multipart at all " * 10_000)
    assert response.status_code == 413
    assert is_untouched(storage, tracker)


@pytest.mark.parametrize("declared", ["-1", "many", "1e3", "9" * 40])
def test_declared_size_is_not_trusted_to_be_a_sane_number(client: TestClient, declared: str) -> None:
    headers = {"content-type": multipart_type(), "content-length": declared}
    response = client.post(UPLOAD, content=multipart_body([Part(CSV)]), headers=headers)
    assert response.status_code == (413 if declared.isdigit() else 201)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"../../etc/passwd.csv", "passwd.csv"),
        (rb"C:\Users\me\rows.csv", "rows.csv"),
        (b"/absolute/rows.csv", "rows.csv"),
        ("🦙 données.csv".encode(), "🦙 données.csv"),
        (b"a\0b.csv", "ab.csv"),
        (b"a\tb\x1b[31m.csv", "ab[31m.csv"),
        ("\u202evsc.csv".encode(), "vsc.csv"),
        (b"a%0d%0aX-Injected: yes.csv", "a%0d%0aX-Injected: yes.csv"),
        (b"<script>.csv", "<script>.csv"),
        (b"a" * 4_000 + b".csv", "a" * 251 + ".csv"),
        (b"\xff.csv", "\ufffd.csv"),
        (b"..csv", "..csv"),
    ],
)
def test_file_name_is_cleaned_and_names_no_path(client: TestClient, settings: Settings, sent: bytes, kept: str) -> None:
    response = send(client, multipart_body([Part(CSV, filename=sent)]))
    assert (response.status_code, response.json().get("filename")) == (201, kept)
    root = Path(settings.storage_url.removeprefix("file://"))
    names = {path.name for path in root.rglob("*") if path.is_file()}
    assert names == {"file", "rows.parquet"}


def test_line_break_in_a_file_name_forges_no_header(
    client: TestClient, storage: Storage, tracker: InProcessTracker
) -> None:
    filename = b'a.csv"\r\nContent-Disposition: form-data; name="other"; filename="b.csv'
    response = send(client, multipart_body([Part(CSV, filename=filename)]))
    assert response.status_code == 400
    assert is_untouched(storage, tracker)


@pytest.mark.parametrize("name", ["", ".csv"])
def test_file_name_without_a_stem_is_refused(
    client: TestClient, storage: Storage, tracker: InProcessTracker, name: str
) -> None:
    response = send(client, multipart_body([Part(CSV, filename=name.encode())]))
    assert response.status_code == 400
    assert is_untouched(storage, tracker)


def test_other_form_fields_are_left_aside_with_a_note(client: TestClient) -> None:
    parts = [
        Part(b"x" * 50_000, name=b"comment", filename=None),
        Part(CSV),
        Part(b"more", name=b"attachment", filename=b"other.csv"),
    ]
    response = send(client, multipart_body(parts))
    assert response.status_code == 201
    assert (response.json()["size_bytes"], response.json()["num_rows"]) == (len(CSV), 2)
    assert [note.partition("; ")[0] for note in response.json()["notes"]] == [
        "the form's field 'comment' isn't known and was left aside",
        "the form's field 'attachment' isn't known and was left aside",
    ]


def test_boundary_in_the_content_is_content(client: TestClient) -> None:
    content = b"text\na --%s b\n-%s\n" % (BOUNDARY, BOUNDARY)
    response = send(client, multipart_body([Part(content)]))
    assert response.status_code == 201
    assert response.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_nothing_is_left_when_the_tracker_refuses(
    client: TestClient, storage: Storage, tracker: InProcessTracker
) -> None:
    tracker.fail_with(TooLateError("the job tracker was too slow; try again in a moment"))
    assert upload(client, CSV).status_code == 503
    assert is_untouched(storage, tracker)


def test_same_bytes_twice_are_two_datasets_and_the_second_says_so(client: TestClient) -> None:
    first, second = upload(client, CSV).json(), upload(client, CSV, "other.csv").json()
    third = upload(client, CSV + b"a,b\n").json()
    assert first["dataset_id"] != second["dataset_id"]
    assert [answer["duplicate_of"] for answer in (first, second, third)] == [None, first["dataset_id"], None]
