"""Datasets under other names of columns, through the API: what was read, and what wasn't, is in the answer."""

from __future__ import annotations

import json

from starlette.testclient import TestClient

from tests.support.fakes_api import Part, multipart_body
from tests.unit.api.uploading import VALIDATE, send

TURNS = [{"from": "human", "value": "Is there rye left?", "lang": "en"}, {"from": "gpt", "value": "Four loaves."}]
SHAREGPT = json.dumps({"id": 7, "conversations": TURNS, "system": "You sell bread."}).encode()
KTO = json.dumps({"prompt": "Is raw dough safe?", "completion": "Sure, eat it all.", "label": False}).encode()


def test_what_is_read_and_what_is_not_is_in_the_answer(client: TestClient) -> None:
    uploaded = send(client, multipart_body([Part(SHAREGPT, filename=b"d.jsonl")]))
    assert uploaded.status_code == 201
    assert (uploaded.json()["format"], uploaded.json()["ignored_columns"]) == ("chat", ["id", "conversations[].lang"])
    rows = client.get(f"/api/datasets/{uploaded.json()['dataset_id']}/rows").json()["rows"]
    assert [(message["role"], message["content"]) for message in rows[0]["messages"]] == [
        ("system", "You sell bread."),
        ("user", "Is there rye left?"),
        ("assistant", "Four loaves."),
    ]


def test_a_check_says_the_same(client: TestClient) -> None:
    report = send(client, multipart_body([Part(SHAREGPT, filename=b"d.jsonl")]), path=VALIDATE).json()
    assert (report["valid"], report["ignored_columns"]) == (True, ["id", "conversations[].lang"])


def test_labelled_answers_have_a_format_of_their_own(client: TestClient) -> None:
    uploaded = send(client, multipart_body([Part(KTO, filename=b"d.jsonl")]))
    assert uploaded.json()["format"] == "unpaired-preference"


def test_a_column_is_left_out_where_the_user_says_so(client: TestClient) -> None:
    parts = [Part(KTO, filename=b"d.jsonl"), Part(b"label=ignore", name=b"columns", filename=None)]
    uploaded = send(client, multipart_body(parts)).json()
    assert (uploaded["format"], uploaded["ignored_columns"]) == ("prompt-completion", ["label"])
