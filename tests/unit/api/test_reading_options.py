"""Options of reading come in the form of an upload, before the file or behind it, and are kept with the dataset."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from sienn_ray.storage import Storage
from tests.support.fakes_api import Part, multipart_body
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.uploading import UPLOAD, VALIDATE, is_untouched, send

ROWS = b"Frage,Antwort\nWhy?,So.\n"
COLUMNS = Part(b"Frage=question,Antwort=answer", name=b"columns", filename=None)
FILE = Part(ROWS)


@pytest.mark.parametrize("parts", [[COLUMNS, FILE], [FILE, COLUMNS]])
def test_options_may_be_before_the_file_or_behind_it(client: TestClient, parts: list[Part]) -> None:
    uploaded = send(client, multipart_body(parts))
    assert uploaded.status_code == 201
    assert uploaded.json()["format"] == "question-answer"
    assert send(client, multipart_body(parts), path=VALIDATE).json()["valid"] is True


def test_options_are_kept_with_the_record(client: TestClient, tracker: InProcessTracker) -> None:
    parts = [FILE, COLUMNS, Part(b"comma", name=b"separator", filename=None), Part(b"x", name=b"sep", filename=None)]
    uploaded = send(client, multipart_body(parts)).json()
    detail = client.get(f"/api/datasets/{uploaded['dataset_id']}").json()
    assert {name: detail[name] for name in ("guessed", "ignored_columns", "notes")} == {
        "guessed": {},
        "ignored_columns": [],
        "notes": [
            "the form's field 'sep' isn't known and was left aside; known are file, encoding, separator, columns"
        ],
    }
    assert detail["reading_options"] == {"separator": ",", "columns": {"Frage": "question", "Antwort": "answer"}}


@pytest.mark.parametrize("path", [UPLOAD, VALIDATE])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (b"separator", b"::", "separator: '::' isn't known; use one of"),
        (b"encoding", b"klingon", "encoding: 'klingon' isn't one that is read here; known are"),
        (b"columns", b"Frage", "columns: 'Frage' is no pair of names"),
        (b"columns", b"\xff=text", "columns: not UTF-8"),
        (b"columns", b"x" * 17_000, "columns: longer than 16,384 bytes"),
    ],
)
def test_bad_options_leave_nothing_behind(
    client: TestClient,
    storage: Storage,
    tracker: InProcessTracker,
    path: str,
    name: bytes,
    value: bytes,
    message: str,
) -> None:
    response = send(client, multipart_body([FILE, Part(value, name=name, filename=None)]), path=path)
    assert response.status_code == 400
    assert message in response.json()["detail"]
    assert is_untouched(storage, tracker)


def test_many_fields_take_bounded_memory(client: TestClient) -> None:
    parts = [Part(b"a=text", name=b"columns", filename=None)] * 101
    response = send(client, multipart_body([*parts, FILE]))
    assert (response.status_code, response.json()["detail"]) == (400, "columns: sent more than 100 times; send it once")
    others = [Part(b"", name=b"x%d" % number, filename=None) for number in range(50)]
    assert len(send(client, multipart_body([*others, COLUMNS, FILE])).json()["notes"]) == 10
