from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from sienn_ray.datasets import intake
from sienn_ray.errors import CapacityError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.fakes_api import BOUNDARY, FakeTracker, Part, dataset_record, multipart_body, multipart_type
from tests.unit.api.conftest import MAX_UPLOAD_BYTES

CSV = b'instruction,response\n"What is Python?",A language.\nExplain LoRA,A technique.\n'
UPLOAD = "/api/upload-dataset"
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def send(client: TestClient, body: bytes | Iterator[bytes], content_type: str | None = None) -> Response:
    return client.post(UPLOAD, content=body, headers={"content-type": content_type or multipart_type()})


def upload(client: TestClient, content: bytes, filename: str = "rows.csv") -> Response:
    return client.post(UPLOAD, files={"file": (filename, content)})


@pytest.fixture
def is_untouched(settings: Settings, tracker: FakeTracker) -> Callable[[], bool]:
    """Whether there is neither a file in storage nor a record in the tracker."""
    root = Path(settings.storage_url.removeprefix("file://"))
    return lambda: tracker.num_records == 0 and not any(path.is_file() for path in root.rglob("*"))


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
    }


def test_file_and_rows_are_in_storage(client: TestClient, storage: Storage) -> None:
    dataset_id = upload(client, CSV).json()["dataset_id"]
    assert storage.read_bytes(intake.file_key(dataset_id)) == CSV
    with storage.reading(intake.rows_key(dataset_id)) as file:
        assert pq.read_table(file).num_rows == 2


CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
ROWS: dict[str, dict[str, Any]] = {
    "instruction-response": {"instruction": "a", "response": "b"},
    "alpaca": {"instruction": "a", "input": "c", "output": "b"},
    "instruction-input-response": {"instruction": "a", "input": "c", "response": "b"},
    "prompt-completion": {"prompt": "a", "completion": "b"},
    "question-answer": {"question": "a", "answer": "b"},
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
    client: TestClient, is_untouched: Callable[[], bool], filename: str, content: bytes, detail: str
) -> None:
    response = upload(client, content, filename)
    assert response.status_code == 400
    assert detail in response.json()["detail"]
    assert is_untouched()


def test_row_over_the_limit_is_refused(client: TestClient, app: FastAPI, is_untouched: Callable[[], bool]) -> None:
    backends = app.state.backends
    limited = backends.settings.model_copy(update={"max_row_bytes": 100})
    app.state.backends = type(backends)(limited, backends.tracker, backends.engines, backends.storage)
    response = upload(client, b"text\n" + b"a" * 200 + b"\n")
    assert response.status_code == 400
    assert "line 2: " in response.json()["detail"]
    assert is_untouched()


@pytest.mark.parametrize(
    ("content_type", "body", "detail"),
    [
        ("application/json", b"{}", "'application/json' is not multipart/form-data with a boundary"),
        ("text/csv", CSV, "is not multipart/form-data"),
        ("multipart/form-data", multipart_body([Part(CSV)]), "is not multipart/form-data with a boundary"),
        ("multipart/form-data; boundary=", multipart_body([Part(CSV)]), "with a boundary"),
        ("multipart/mixed; boundary=0e1d2c3b4a", multipart_body([Part(CSV)]), "is not multipart/form-data"),
        ("multipart/form-data; boundary=" + "b" * 300, multipart_body([Part(CSV)]), "boundary"),
        ("multipart/form-data; boundary=other", multipart_body([Part(CSV)]), "can't be parsed"),
        (multipart_type(), b"", "no part named 'file'"),
        (multipart_type(), CSV, "can't be parsed"),
        (multipart_type(), multipart_body([]), "no part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV, name=b"dataset")]), "no part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV, filename=None)]), "no part named 'file' with a file name"),
        (multipart_type(), multipart_body([Part(CSV), Part(CSV)]), "more than one part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV)], is_closed=False), "ended before its closing boundary"),
        (multipart_type(), multipart_body([Part(CSV)])[:-6], "ended before its closing boundary"),
        (multipart_type(), multipart_body([Part(CSV)])[:90], "ended before its closing boundary"),
        (multipart_type(), multipart_body([Part(CSV)])[:30], "no part named 'file'"),
        (multipart_type(), multipart_body([Part(CSV, filename=b"a" * 20_000 + b".csv")]), "header"),
    ],
)
def test_bad_body_is_refused_and_leaves_nothing(
    client: TestClient, is_untouched: Callable[[], bool], content_type: str, body: bytes, detail: str
) -> None:
    response = send(client, body, content_type)
    assert response.status_code == 400
    assert detail in response.json()["detail"]
    assert is_untouched()


def test_missing_content_type_is_refused(client: TestClient) -> None:
    response = client.post(UPLOAD, content=multipart_body([Part(CSV)]))
    assert response.status_code == 400
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


def test_one_byte_more_is_refused(client: TestClient, is_untouched: Callable[[], bool]) -> None:
    response = upload(client, rows_of(MAX_UPLOAD_BYTES + 1))
    assert response.status_code == 413
    assert response.json()["status_code"] == 413
    assert f"more than {MAX_UPLOAD_BYTES} bytes" in response.json()["detail"]
    assert is_untouched()


def test_size_is_counted_where_none_is_declared(client: TestClient, is_untouched: Callable[[], bool]) -> None:
    body = multipart_body([Part(rows_of(MAX_UPLOAD_BYTES + 1))])
    request = client.build_request(
        "POST", UPLOAD, content=iter([body[:50_000], body[50_000:]]), headers={"content-type": multipart_type()}
    )
    assert "content-length" not in request.headers
    assert client.send(request).status_code == 413
    assert is_untouched()


def test_chunked_upload_is_taken(client: TestClient) -> None:
    body = multipart_body([Part(CSV)])
    response = send(client, (body[start : start + 7] for start in range(0, len(body), 7)))
    assert response.status_code == 201
    assert response.json()["sha256"] == hashlib.sha256(CSV).hexdigest()


def test_declared_size_over_the_limit_is_refused_before_the_body_is_parsed(
    client: TestClient, is_untouched: Callable[[], bool]
) -> None:
    response = send(client, b"not multipart at all " * 10_000)
    assert response.status_code == 413
    assert is_untouched()


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


def test_line_break_in_a_file_name_forges_no_header(client: TestClient, is_untouched: Callable[[], bool]) -> None:
    filename = b'a.csv"\r\nContent-Disposition: form-data; name="other"; filename="b.csv'
    response = send(client, multipart_body([Part(CSV, filename=filename)]))
    assert response.status_code == 400
    assert is_untouched()


@pytest.mark.parametrize("name", ["", ".csv"])
def test_file_name_without_a_stem_is_refused(client: TestClient, is_untouched: Callable[[], bool], name: str) -> None:
    response = send(client, multipart_body([Part(CSV, filename=name.encode())]))
    assert response.status_code == 400
    assert is_untouched()


def test_other_form_fields_are_ignored(client: TestClient) -> None:
    parts = [
        Part(b"x" * 50_000, name=b"comment", filename=None),
        Part(CSV),
        Part(b"more", name=b"attachment", filename=b"other.csv"),
    ]
    response = send(client, multipart_body(parts))
    assert response.status_code == 201
    assert (response.json()["size_bytes"], response.json()["num_rows"]) == (len(CSV), 2)


def test_boundary_in_the_content_is_content(client: TestClient) -> None:
    content = b"text\na --%s b\n-%s\n" % (BOUNDARY, BOUNDARY)
    response = send(client, multipart_body([Part(content)]))
    assert response.status_code == 201
    assert response.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_nothing_is_left_when_the_tracker_refuses(
    client: TestClient, tracker: FakeTracker, is_untouched: Callable[[], bool]
) -> None:
    tracker.error = CapacityError("the job tracker is restarting")
    assert upload(client, CSV).status_code == 503
    assert is_untouched()


def test_nothing_is_left_when_the_client_goes_away(app: FastAPI, is_untouched: Callable[[], bool]) -> None:
    messages = iter(
        [
            {"type": "http.request", "body": multipart_body([Part(CSV)], is_closed=False), "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": UPLOAD,
        "query_string": b"",
        "headers": [(b"content-type", multipart_type().encode())],
    }
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return next(messages)

    async def keep(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, keep))
    assert sent[0]["status"] == 400
    assert is_untouched()


def test_same_file_twice_is_two_datasets(client: TestClient) -> None:
    assert upload(client, CSV).json()["dataset_id"] != upload(client, CSV).json()["dataset_id"]


def test_list_has_the_newest_first(client: TestClient) -> None:
    ids = [upload(client, CSV, f"{name}.csv").json()["dataset_id"] for name in ("first", "second", "third")]
    datasets = client.get("/api/datasets").json()["datasets"]
    assert [dataset["id"] for dataset in datasets] == ids[::-1]


def test_list_has_the_fields_of_the_contract(client: TestClient, tracker: FakeTracker) -> None:
    tracker.put(dataset_record())
    assert client.get("/api/datasets").json() == {
        "datasets": [
            {
                "id": "dataset-1",
                "filename": "conversations.csv",
                "size_bytes": 102_400,
                "status": "uploaded",
                "created_at": "2025-11-12T10:30:00.007Z",
                "format": "instruction-response",
                "num_rows": 2,
            }
        ]
    }


def test_empty_list_is_a_list(client: TestClient) -> None:
    assert client.get("/api/datasets").json() == {"datasets": []}
