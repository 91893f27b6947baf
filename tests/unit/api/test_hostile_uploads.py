"""Files and names that hurt: each ends in a right answer or a clear refusal, and a refusal leaves nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tracemalloc
import zipfile
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.settings import MIB
from sienn_ray.storage import Storage
from tests.support.fakes_api import BOUNDARY, Part, multipart_body
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.uploading import UPLOAD, VALIDATE, is_untouched, messages_of, post, send, stored, upload


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """With limits as a service has them."""
    backends: Backends = app.state.backends
    fields = {**vars(backends), "settings": backends.settings.model_copy(update={"max_upload_bytes": 200 * MIB})}
    with TestClient(create_app(Backends(**fields))) as client:
        yield client


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.csv", "text\na\n")
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), buffer)
    return buffer.getvalue()


def wide(num_columns: int) -> tuple[str, str]:
    """A header and a row with a text and so many other columns."""
    names = [f"column{number}" for number in range(num_columns)]
    return ",".join(["text", *names]), ",".join(["a"] * (num_columns + 1))


HEADER, ROW = wide(1_000)
MANY_KEYS = json.dumps({"text": "a", **{f"key{number}": number for number in range(1_000)}})
DEEP = "[" * 10_000 + "]" * 10_000
TEXT = "text\ncafé\n"

# Content, extension, and what comes back: rows, or the beginning of the detail.
TAKEN: dict[str, tuple[bytes, str, int]] = {
    "a thousand columns": (f"{HEADER}\n{ROW}\n{ROW}\n".encode(), "csv", 2),
    "a thousand keys": (f"[{MANY_KEYS}]".encode(), "json", 1),
    "byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), "csv", 1),
    "byte order mark before an array": (b'\xef\xbb\xbf[{"text": "a"}]', "json", 1),
    "UTF-16": (TEXT.encode("utf-16"), "csv", 1),
    "UTF-32": (TEXT.encode("utf-32"), "csv", 1),
    "Parquet under another name": (parquet(), "csv", 1),
    "gzip": (gzip.compress(TEXT.encode(), mtime=0), "csv", 1),
    "quoted line breaks": (b'text\n"a\r\n\nb"\nc\n', "csv", 2),
    "nested 30 deep": (('{"text": "a", "n": ' + "[" * 30 + "]" * 30 + "}").encode(), "jsonl", 1),
    "everything quoted": (b'"text"\n"a, ""b"", c"\n', "csv", 1),
    "script in a cell": (b"text\n<script>alert(1)</script>\n=cmd|'/c calc'!A0\n", "csv", 2),
}
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "two of a thousand columns are equal": (
        f"{HEADER},COLUMN7\n{ROW},a\n".encode(),
        "csv",
        "line 1: the header has the",
    ),
    "unknown thousand columns": (f"{HEADER[5:]}\n{ROW[2:]}\n".encode(), "csv", "unknown columns: found 'column0', "),
    "ragged rows": (b"prompt,completion\na,b\nc\nd,e,f\n", "csv", "line 3: the row has 1 fields, but the header has 2"),
    "quote left open": (b'text\n"a\n' + b"b\n" * 1_000, "csv", "line 2: broken CSV: a quote opened in this row is"),
    "UTF-16 without a mark": (
        TEXT.encode("utf-16-le"),
        "csv",
        "line 1: the content is UTF-16 without a byte order mark; give encoding=utf-16-le, or save",
    ),
    "UTF-16 the other way round": (
        TEXT.encode("utf-16-be"),
        "csv",
        "line 1: the content is UTF-16 without a byte order mark; give encoding=utf-16-be, or save",
    ),
    "Latin-1": (TEXT.encode("latin-1"), "csv", "line 2: byte 0xe9 at offset 8 is not UTF-8; save the file as UTF-8"),
    "NUL": (b"text\na\0b\n", "csv", "line 2: byte 0x00 at offset 6 is not text"),
    "NUL in JSON": (b'[{"text": "a\0b"}]', "json", "line 1: byte 0x00 at offset 12 is not text"),
    "nested 10,000 deep": (f'{{"text": "a", "n": {DEEP}}}'.encode(), "jsonl", "line 1: nested deeper than 32 levels"),
    "array nested 10,000 deep": (f'[{{"text": "a", "n": {DEEP}}}]'.encode(), "json", "row 1: nested deeper than 32"),
    "nothing but brackets": (b"[" * 100_000, "json", "row 1: must be an object, got a list; row 1: the JSON ends"),
    "nothing but braces": (b'{"a":' * 100_000, "jsonl", "line 1: nested deeper than 32 levels"),
    "NaN": (b'{"text": "a", "n": NaN}', "jsonl", "line 1: NaN is not JSON; write a string, or null where"),
    "NaN in an array": (b'[{"text": "a", "n": NaN}]', "json", "row 1: invalid JSON"),
    "Infinity": (b'{"text": "a", "n": -Infinity}', "jsonl", "line 1: -Infinity is not JSON"),
    "number out of range": (b'{"text": "a", "n": 1e999}', "jsonl", "line 1: the number '1e999' is out of range"),
    "number of 5,000 digits": (b'{"text": "a", "n": ' + b"1" * 5_000 + b"}", "jsonl", "line 1: a number has too many"),
    "keys twice": (b'{"text": "a", "text": "b"}', "jsonl", "line 1: the key 'text' comes more than once in an object"),
    "keys twice in an array": (b'[{"text": "a", "text": "b"}]', "json", "row 1: the key 'text' comes more than once"),
    "number for a string": (
        b'[{"text": "a"}, {"text": 7}]',
        "json",
        "row 2: column 'text' must be a string, got a number",
    ),
    "object for a string": (b'{"prompt": {}, "completion": "a"}', "jsonl", "line 1: column 'prompt' must be a string"),
    "half a surrogate pair": (b'{"text": "\\ud83e"}', "jsonl", "line 1: column 'text' has half of a surrogate pair"),
    "ZIP": (zipped(), "csv", "line 1: the content is a ZIP archive (or an Excel workbook); unpack it, or"),
    "Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "csv", "line 1: the content is an old Excel workbook"),
    "other extension": (
        TEXT.encode(),
        "exe",
        "the extension '.exe' is not accepted; use one of .csv, .json, .jsonl, .ndjson, .parquet, .tsv, .txt, or",
    ),
    "a line of 50 MB": (b"text\na\n" + b"x" * 50_000_000, "csv", "line 3: the line is longer than 4,194,304 bytes"),
    "a JSON line of 50 MB": (b'{"text": "' + b"x" * 50_000_000 + b'"}', "jsonl", "line 1: the line is longer than"),
    "a row of 50 MB": (b'[{"text": "' + b"x" * 50_000_000 + b'"}]', "json", "row 1: longer than 4,194,304 bytes"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(client: TestClient, storage: Storage, case: str) -> None:
    content, extension, num_rows = TAKEN[case]
    response = upload(client, content, f"rows.{extension}")
    body = response.json()
    assert (response.status_code, body.get("num_rows")) == (201, num_rows)
    dataset_id = body["dataset_id"]
    assert stored(storage) == {dataset_id, f"{dataset_id}/file", f"{dataset_id}/rows.parquet"}
    assert len(response.content) < 200_000
    assert upload(client, content, f"rows.{extension}", VALIDATE).json()["valid"] is True
    assert client.get(f"/api/datasets/{dataset_id}/rows").json()["num_rows"] == num_rows


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client: TestClient, storage: Storage, tracker: InProcessTracker, case: str) -> None:
    content, extension, detail = REFUSED[case]
    response = upload(client, content, f"rows.{extension}")
    body = response.json()
    assert (response.status_code, set(body), body["status_code"]) == (400, {"detail", "status_code"}, 400)
    assert body["detail"].startswith(detail)
    assert len(body["detail"]) < 4_000
    assert is_untouched(storage, tracker)


@pytest.mark.parametrize("case", REFUSED)
def test_reported(client: TestClient, storage: Storage, tracker: InProcessTracker, case: str) -> None:
    content, extension, detail = REFUSED[case]
    response = upload(client, content, f"rows.{extension}", VALIDATE)
    report = response.json()
    assert (response.status_code, report["valid"]) == (200, False)
    assert detail.startswith(report["errors"][0]["message"][: len(detail)].split("; row 1")[0])
    assert len(response.content) < 100_000
    assert is_untouched(storage, tracker)


NAMES: dict[str, tuple[bytes, str | None]] = {
    "folders": (b"../../etc/passwd.csv", "passwd.csv"),
    "Windows folders": (rb"..\..\rows.csv", "rows.csv"),
    "encoded line break": (b"a%0d%0ab.csv", "a%0d%0ab.csv"),
    "NUL": (b"a\0b.csv", "ab.csv"),
    "emoji": ("🦙🏳️‍🌈.csv".encode(), "🦙🏳️🌈.csv"),
    "4,000 characters": (b"a" * 3_996 + b".csv", "a" * 251 + ".csv"),
    "4,000 emoji": (("🦙" * 3_996 + ".csv").encode(), "🦙" * 251 + ".csv"),
    "40,000 characters": (b"a" * 40_000 + b".csv", None),
    "nothing but an extension": (b".csv", None),
    "nothing": (b"", None),
    "only dots": (b"..", None),
}


@pytest.mark.parametrize("case", NAMES)
def test_names(client: TestClient, storage: Storage, tracker: InProcessTracker, case: str) -> None:
    sent, kept = NAMES[case]
    response = send(client, multipart_body([Part(b"text\na\n", filename=sent)]))
    if kept is None:
        assert response.status_code == 400
        assert is_untouched(storage, tracker)
        return
    assert (response.status_code, response.json()["filename"]) == (201, kept)
    dataset_id = response.json()["dataset_id"]
    assert stored(storage) == {dataset_id, f"{dataset_id}/file", f"{dataset_id}/rows.parquet"}
    download = client.get(f"/api/datasets/{dataset_id}/download")
    assert download.content == b"text\na\n"
    security = {"content-security-policy", "cross-origin-opener-policy", "referrer-policy", "x-frame-options"}
    assert set(download.headers) - security == {
        "content-length",
        "content-disposition",
        "content-type",
        "etag",
        "x-content-type-options",
        "x-request-id",
    }


@pytest.mark.parametrize(
    "name", [b'a.csv"\r\nX-Injected: yes; b="', b"a.csv\r\n\r\ntext", b"a\r\n--%s--\r\n.csv" % BOUNDARY]
)
def test_line_break_in_a_name_forges_nothing(
    client: TestClient, storage: Storage, tracker: InProcessTracker, name: bytes
) -> None:
    response = send(client, multipart_body([Part(b"text\na\n", filename=name)]))
    assert "x-injected" not in response.headers
    assert response.status_code in {201, 400}
    if response.status_code == 400:
        assert is_untouched(storage, tracker)
    else:
        assert response.json()["filename"] == "a.csv"


@pytest.mark.parametrize("path", [UPLOAD, VALIDATE])
@pytest.mark.parametrize(
    ("filename", "head", "filler", "message"),
    [
        (b"d.csv", b"text\n", b"x", "line 2: the line is longer than 4,194,304 bytes"),
        (b"d.jsonl", b'{"text": "', b"x", "line 1: the line is longer than 4,194,304 bytes"),
        (b"d.json", b'[{"text": "', b"x", "row 1: longer than 4,194,304 bytes"),
        (b"d.csv", b"text\n", b",\n", "line 2: the row has 2 fields"),
        (b"d.jsonl", b"", b"[]\n", "line 1: each line must be a JSON object, got a list"),
        (b"d.json", b"[{", b'"a":[],', "row 1: "),
    ],
)
def test_memory_is_bounded_whatever_comes(
    client: TestClient, path: str, filename: bytes, head: bytes, filler: bytes, message: str
) -> None:
    chunk = (filler * MIB)[: MIB // len(filler) * len(filler)]
    opening = multipart_body([Part(head, filename=filename)], is_closed=False).removesuffix(b"\r\n")

    def chunks() -> Iterator[bytes]:
        yield opening
        for _ in range(24):
            yield chunk
        yield b"\r\n--%s--\r\n" % BOUNDARY

    tracemalloc.start()
    try:
        answer = asyncio.run(post(client.app, messages_of(chunks()), path))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    found = answer.body["detail"] if path == UPLOAD else answer.body["errors"][0]["message"]
    assert (answer.status, found[: len(message)]) == (400 if path == UPLOAD else 200, message)
    assert peak_bytes < 20 * MIB
