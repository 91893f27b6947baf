from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from sienn_ray.storage import Storage
from tests.support.fakes_api import Part, multipart_body
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.conftest import MAX_UPLOAD_BYTES
from tests.unit.api.uploading import CSV, VALIDATE, is_untouched, send, upload


def test_good_file(client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
    response = upload(client, CSV, "../conversations.csv", VALIDATE)
    assert response.status_code == 200
    assert response.json() == {
        "valid": True,
        "filename": "conversations.csv",
        "size_bytes": len(CSV),
        "format": "instruction-response",
        "columns": ["instruction", "response"],
        "num_rows": 2,
        "num_bad_rows": 0,
        "errors": [],
        "complete": True,
        "guessed": {},
        "ignored_columns": [],
        "notes": [],
        "preview": [
            {"instruction": "What is Python?", "response": "A language."},
            {"instruction": "Explain LoRA", "response": "A technique."},
        ],
    }
    assert is_untouched(storage, tracker)


def test_bad_rows_are_listed(client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
    content = b"text\n" + b"a\n,\n" * 30 + b"\xff"
    report = upload(client, content, path=VALIDATE).json()
    assert (report["valid"], report["complete"]) == (False, False)
    assert (report["num_rows"], report["num_bad_rows"]) == (60, 30)
    assert [error["line"] for error in report["errors"]] == [*range(3, 43, 2), 62]
    assert report["errors"][0]["message"].startswith("line 3: the row has 2 fields, but the header has 1 columns;")
    assert report["errors"][-1]["message"].startswith("line 62: byte 0xff at offset")
    assert report["preview"] == [{"text": "a"}] * 5
    assert is_untouched(storage, tracker)


def test_preferences_are_checked(client: TestClient) -> None:
    report = upload(client, b"prompt,chosen,rejected\na,b,c\na,b,b\n", path=VALIDATE).json()
    assert (report["format"], report["num_rows"], report["num_bad_rows"]) == ("preference", 2, 1)
    assert report["errors"][0]["message"].startswith("line 3: columns 'chosen' and 'rejected' hold the same answer")
    assert report["preview"] == [{"prompt": "a", "chosen": "b", "rejected": "c"}]


@pytest.mark.parametrize(
    ("content", "filename", "message"),
    [
        (b"PK\x03\x04", "rows.csv", "line 1: the content is a ZIP archive"),
        (b"", "rows.csv", "the file is empty"),
        (CSV, "rows.xlsx", "the extension '.xlsx' is not accepted"),
        (CSV, "rows", "a file without an extension is not accepted"),
        (b'{"version": 1}', "rows.json", "the file must be an array of objects, got an object"),
    ],
)
def test_file_that_cannot_be_read_is_a_report_too(
    client: TestClient, storage: Storage, tracker: InProcessTracker, content: bytes, filename: str, message: str
) -> None:
    response = upload(client, content, filename, VALIDATE)
    report = response.json()
    assert response.status_code == 200
    assert (report["valid"], report["complete"], report["format"], report["num_rows"]) == (False, False, None, 0)
    assert [error["message"][: len(message)] for error in report["errors"]] == [message]
    assert is_untouched(storage, tracker)


def test_what_validates_is_taken_and_what_does_not_is_refused_in_the_same_words(client: TestClient) -> None:
    bad = CSV + b"a,b,c\n"
    assert upload(client, CSV).status_code == 201
    refusal = upload(client, bad)
    assert refusal.status_code == 400
    assert refusal.json()["detail"] == upload(client, bad, path=VALIDATE).json()["errors"][0]["message"]


def test_file_over_the_limit_is_refused(client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
    response = upload(client, b"x" * (MAX_UPLOAD_BYTES + 1), path=VALIDATE)
    assert response.status_code == 413
    assert is_untouched(storage, tracker)


def test_broken_body_is_refused(client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
    response = send(client, multipart_body([Part(CSV)], is_closed=False), path=VALIDATE)
    assert response.status_code == 400
    assert is_untouched(storage, tracker)


def test_tracker_is_not_asked(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.fail_with(RuntimeError("nobody home"))
    assert upload(client, CSV, path=VALIDATE).status_code == 200
