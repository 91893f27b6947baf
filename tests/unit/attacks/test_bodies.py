"""Bodies that are deep, wide, compressed or full of digits are refused in words, in bounded time and memory.

Those that are too long or too slow are in test_body_limits.py, test_transfer_rates.py, test_multipart.py and
test_hostile_uploads.py.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import pytest
from starlette.testclient import TestClient

from tests.unit.attacks.operations import BODIES, operations

DEPTH = 100_000
MAX_DETAIL_CHARS = 5_000
HOSTILE = {
    "deep lists": b"[" * DEPTH + b"]" * DEPTH,
    "deep objects": b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
    "deep and open": b'{"messages":' + b"[" * DEPTH,
    "many keys": json.dumps({f"key{number}": number for number in range(20_000)}).encode(),
    "one key, many times": b"{" + b",".join([b'"prompt":"a"'] * 20_000) + b"}",
    "many digits": b'{"seed":' + b"9" * 100_000 + b"}",
    "many digits of a float": b'{"temperature":0.' + b"1" * 100_000 + b"}",
    "huge exponent": b'{"temperature":1e999999999}',
    "no number": b'{"temperature":NaN,"seed":Infinity}',
    "lone surrogate": b'{"prompt":"\\ud800"}',
    "NUL": b'{"prompt":"a\\u0000b"}',
    "no UTF-8": b'{"prompt":"\xff\xfe"}',
    "UTF-16": '{"prompt":"a"}'.encode("utf-16"),
    "nothing": b"",
    "a string": b'"' + b"x" * 500_000 + b'"',
    "two objects": b"{}{}",
}


@pytest.mark.parametrize("operation", operations())
def test_a_hostile_body_is_refused_in_few_words(client: TestClient, operation: str) -> None:
    method, path = operations()[operation]
    path = path.format(job_id="job-1", key_id="key-1")
    for name, body in HOSTILE.items():
        response = client.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code < 500 or response.status_code == 503, (name, response.text[:300])
        if response.is_error:
            assert len(response.text) < MAX_DETAIL_CHARS, name


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"])
def test_a_compressed_body_is_never_unpacked(client: TestClient, encoding: str) -> None:
    """So a bomb is as large as it looks: nothing here unpacks bodies, and a body that isn't JSON is refused."""
    bomb = gzip.compress(b'{"prompt":"' + b"a" * 10_000_000 + b'"}')
    assert len(bomb) < 20_000
    response = client.post(
        "/api/test-model", content=bomb, headers={"Content-Type": "application/json", "Content-Encoding": encoding}
    )
    assert response.status_code in {400, 415, 422}
    assert len(response.text) < MAX_DETAIL_CHARS


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt", "rows.jsonl.gz", "rows.zip"])
def test_an_archive_is_no_dataset(client: TestClient, name: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil.jsonl", '{"text": "a"}\n' * 100_000)
    response = client.post("/api/upload-dataset", files={"file": (name, archive.getvalue())})
    assert response.status_code == 400, response.text


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_file_that_unpacks_to_far_more_is_no_dataset(client: TestClient, name: str) -> None:
    bomb = gzip.compress(70 * (b'{"text": "' + b"a" * 3_000_000 + b'"}\n'))
    response = client.post("/api/upload-dataset", files={"file": (name, bomb)})
    assert response.status_code == 400, response.text
    assert "times" in response.json()["detail"]


def test_operations_with_bodies_are_all_attacked() -> None:
    assert set(operations()) == set(BODIES)
