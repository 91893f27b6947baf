"""Datasets from the hub, over a hub on a local port."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from huggingface_hub import constants
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_hub import COMMIT, FakeHub
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.uploading import is_untouched, stored

pytestmark = pytest.mark.usefixtures("hub_home")

IMPORT = "/api/import-dataset"
REPO = "owner/talks"
CSV = b"instruction,response\nhi,hello\nbye,see you\n"
OLD = "a" * 40


def lines(*pairs: Sequence[str]) -> bytes:
    return b"".join(json.dumps({"prompt": p, "completion": c}).encode() + b"\n" for p, c in pairs)


def bring(client: TestClient, source: str = f"hf:{REPO}", **fields: Any) -> Any:
    return client.post(IMPORT, json={"source": source, **fields})


def answers(client: TestClient, dataset_id: str) -> list[str]:
    rows = client.get(f"/api/datasets/{dataset_id}/rows").json()["rows"]
    return [row["messages"][-1]["content"] for row in rows]


class TestImport:
    def test_one_file_is_kept_as_it_is_with_its_commit(self, client: TestClient, hub: FakeHub) -> None:
        hub.datasets[REPO] = {"README.md": b"words", "data/train.csv": CSV, "load.py": b"raise SystemExit"}
        answer = bring(client)
        assert answer.status_code == 201, answer.text
        dataset = answer.json()
        assert (dataset["filename"], dataset["num_rows"], dataset["size_bytes"]) == ("train.csv", 2, len(CSV))
        assert (dataset["source"], dataset["source_revision"]) == (f"hf:{REPO}", COMMIT)
        assert client.get(f"/api/datasets/{dataset['dataset_id']}/download").content == CSV
        assert client.get(f"/api/datasets/{dataset['dataset_id']}").json()["source_revision"] == COMMIT

    def test_several_files_are_joined_in_their_order(self, client: TestClient, hub: FakeHub, storage: Storage) -> None:
        hub.datasets[REPO] = {
            "train-00001-of-00002.jsonl": lines(("c", "3")),
            "train-00000-of-00002.jsonl": lines(("a", "1"), ("b", "2")),
            "test.jsonl": lines(("d", "4")),
        }
        dataset = bring(client).json()
        assert (dataset["num_rows"], dataset["filename"], dataset["format"]) == (3, "talks.jsonl", "chat")
        assert answers(client, dataset["dataset_id"]) == ["1", "2", "3"]
        assert {name.split("/")[0] for name in stored(storage)} == {dataset["dataset_id"]}
        assert answers(client, bring(client, f"hf:{REPO}:test").json()["dataset_id"]) == ["4"]

    def test_revision_is_resolved_to_its_commit(self, client: TestClient, hub: FakeHub) -> None:
        hub.datasets[REPO] = {"rows.csv": CSV}
        hub.commits[REPO] = {"v1.0": OLD}
        dataset = bring(client, f"hf:{REPO}@v1.0").json()
        assert (dataset["source"], dataset["source_revision"]) == (f"hf:{REPO}@v1.0", OLD)

    def test_columns_of_other_names(self, client: TestClient, hub: FakeHub) -> None:
        hub.datasets[REPO] = {"rows.jsonl": b'{"Frage": "hi", "Antwort": "hello"}\n'}
        answer = bring(client, columns={"Frage": "question", "Antwort": "answer"})
        assert answer.status_code == 201, answer.text
        assert answers(client, answer.json()["dataset_id"]) == ["hello"]

    def test_parquet_and_packed_files(self, client: TestClient, hub: FakeHub) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"prompt": ["a", "b"], "completion": ["1", "2"]}), sink)
        hub.datasets[REPO] = {
            "train-00000.parquet": sink.getvalue(),
            "train-00001.parquet": sink.getvalue(),
            "test.jsonl.gz": gzip.compress(lines(("c", "3"))),
        }
        assert answers(client, bring(client).json()["dataset_id"]) == ["1", "2", "1", "2"]
        hub.datasets[REPO] = {"test.jsonl.gz": gzip.compress(lines(("c", "3")))}
        assert answers(client, bring(client).json()["dataset_id"]) == ["3"]


class TestToken:
    @pytest.fixture(autouse=True)
    def _token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def test_stays_here_by_default(self, client: TestClient, hub: FakeHub) -> None:
        hub.datasets[REPO] = {"rows.csv": CSV}
        assert bring(client).status_code == 201
        assert set(hub.tokens) == {None}

    def test_is_used_where_the_operator_says_so(
        self, settings: Settings, tracker: InProcessTracker, storage: Storage, hub: FakeHub
    ) -> None:
        hub.datasets[REPO] = {"rows.csv": CSV}
        chosen = settings.model_copy(update={"hub_datasets_use_token": True})
        app: FastAPI = create_app(fake_backends(chosen, tracker=tracker, storage=storage))
        with TestClient(app) as client:
            answer = bring(client)
        assert answer.status_code == 201
        assert set(hub.tokens) == {"Bearer hf_secret"}
        assert "hf_secret" not in answer.text


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "code", "words"),
        [
            (403, "GatedRepo", "owner/talks is gated: the hub gives it to those alone who have accepted its terms"),
            (404, "RepoNotFound", "there is no dataset owner/talks on the hub, or it is private"),
            (401, "RepoNotFound", "there is no dataset owner/talks on the hub, or it is private"),
            (418, "", "the hub refuses hf:owner/talks with status 418"),
        ],
    )
    def test_words_of_the_hub_become_ours(
        self, client: TestClient, hub: FakeHub, storage: Storage, tracker: InProcessTracker, status: int, code: str,
        words: str,
    ) -> None:  # fmt: skip
        hub.errors[REPO] = (status, code)
        answer = bring(client)
        assert answer.status_code == 400
        assert words in answer.json()["detail"]
        assert is_untouched(storage, tracker)

    def test_unknown_revision(self, client: TestClient, hub: FakeHub) -> None:
        hub.datasets[REPO] = {"rows.csv": CSV}
        answer = bring(client, f"hf:{REPO}@v9")
        assert (answer.status_code, "has no revision 'v9'" in answer.json()["detail"]) == (400, True)

    @pytest.mark.parametrize("source", ["https://huggingface.co/a/b", "hf:../x", "hf:a", "file:///etc/passwd"])
    def test_what_is_no_source_reaches_no_hub(self, client: TestClient, hub: FakeHub, source: str) -> None:
        answer = bring(client, source)
        assert answer.status_code == 400
        assert "hf:owner/name" in answer.json()["detail"]
        assert hub.num_requests == 0

    def test_bad_rows_are_named_with_their_file_and_nothing_stays(
        self, client: TestClient, hub: FakeHub, storage: Storage, tracker: InProcessTracker
    ) -> None:
        hub.datasets[REPO] = {"a.jsonl": lines(("a", "1")), "b.jsonl": lines(("b", "2")) + b'{"prompt": "c"}\n'}
        answer = bring(client)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("b.jsonl: ")
        assert "line 2" in answer.json()["detail"]
        assert is_untouched(storage, tracker)

    def test_files_of_different_kinds(
        self, client: TestClient, hub: FakeHub, storage: Storage, tracker: InProcessTracker
    ) -> None:
        hub.datasets[REPO] = {"a.jsonl": lines(("a", "1")), "b.jsonl": b'{"text": "Once"}\n'}
        assert "can't be mixed" in bring(client).json()["detail"]
        assert is_untouched(storage, tracker)

    def test_more_bytes_than_an_upload_may_have_are_not_downloaded(
        self, client: TestClient, hub: FakeHub, storage: Storage, tracker: InProcessTracker
    ) -> None:
        hub.datasets[REPO] = {"a.jsonl": lines(("a", "1")), "b.jsonl": lines(("b", "2"))}
        hub.sizes = {"a.jsonl": 60_000, "b.jsonl": 60_000}
        answer = bring(client)
        assert answer.status_code == 413
        assert "SIENN_MAX_UPLOAD_BYTES" in answer.json()["detail"]
        assert hub.num_requests == 1
        assert is_untouched(storage, tracker)

    def test_offline(self, client: TestClient, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        answer = bring(client)
        assert answer.status_code == 400
        assert "this service doesn't ask the hub (HF_HUB_OFFLINE is set)" in answer.json()["detail"]

    @pytest.mark.usefixtures("offline")
    def test_hub_that_is_out_of_reach(self, client: TestClient) -> None:
        answer = bring(client)
        assert answer.status_code == 503
        assert "the hub can't be reached at the moment" in answer.json()["detail"]
