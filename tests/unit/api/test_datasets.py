from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from sienn_ray.api.http.attachments import CHUNK_BYTES, content_disposition
from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.row_pages import MAX_MESSAGES, MAX_STRING_CHARS
from sienn_ray.errors import CapacityError
from sienn_ray.storage import Storage
from tests.support.fakes_api import CREATED_AT, dataset_record, job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.uploading import CSV, is_untouched, stored, upload

LIST = "/api/datasets"


FIRST_VERSION = {
    "version": 1,
    "version_of": None,
    "change": None,
    "appended_to": None,
    "source": None,
    "source_revision": None,
}


class TestList:
    def test_newest_comes_first(self, client: TestClient) -> None:
        ids = [upload(client, CSV, f"{name}.csv").json()["dataset_id"] for name in ("first", "second", "third")]
        assert [dataset["id"] for dataset in client.get(LIST).json()["datasets"]] == ids[::-1]

    def test_fields(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(duplicate_of="dataset-0"))
        assert client.get(LIST).json() == {
            "datasets": [
                {
                    "id": "dataset-1",
                    "filename": "conversations.csv",
                    "size_bytes": 102_400,
                    "status": "uploaded",
                    "created_at": "2025-11-12T10:30:00.007Z",
                    "format": "instruction-response",
                    "num_rows": 2,
                    "duplicate_of": "dataset-0",
                    **FIRST_VERSION,
                }
            ],
            "count": 1,
            "next_cursor": None,
        }

    def test_empty_list_is_a_list(self, client: TestClient) -> None:
        assert client.get(LIST).json() == {"datasets": [], "count": 0, "next_cursor": None}
        assert client.get(LIST, params={"limit": 5}).json() == {"datasets": [], "count": 0, "next_cursor": None}


class TestPages:
    @pytest.fixture(autouse=True)
    def records(self, tracker: InProcessTracker) -> None:
        for number in range(7):
            tracker.put(dataset_record(id=f"dataset-{number}", created_at=CREATED_AT + timedelta(seconds=number)))

    def pages(self, client: TestClient, limit: int) -> list[list[str]]:
        """Ids of page after page."""
        pages: list[list[str]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = client.get(LIST, params={"limit": limit, **cursor}).json()
            assert answer["count"] == 7
            pages.append([dataset["id"] for dataset in answer["datasets"]])
            if answer["next_cursor"] is None:
                return pages
            cursor = {"cursor": answer["next_cursor"]}

    @pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (1000, [7])])
    def test_pages_are_the_list_in_pieces(self, client: TestClient, limit: int, sizes: list[int]) -> None:
        pages = self.pages(client, limit)
        assert [len(page) for page in pages] == sizes
        assert [dataset_id for page in pages for dataset_id in page] == [f"dataset-{n}" for n in reversed(range(7))]

    def test_cursor_without_limit_gives_the_rest(self, client: TestClient) -> None:
        cursor = client.get(LIST, params={"limit": 5}).json()["next_cursor"]
        rest = client.get(LIST, params={"cursor": cursor}).json()
        assert [dataset["id"] for dataset in rest["datasets"]] == ["dataset-1", "dataset-0"]

    def test_dataset_at_the_cursor_may_be_deleted_meanwhile(self, client: TestClient) -> None:
        cursor = client.get(LIST, params={"limit": 3}).json()["next_cursor"]
        assert client.delete(f"{LIST}/dataset-4").status_code == 200
        rest = client.get(LIST, params={"limit": 3, "cursor": cursor}).json()
        assert [dataset["id"] for dataset in rest["datasets"]] == ["dataset-3", "dataset-2", "dataset-1"]

    @pytest.mark.parametrize("cursor", ["x", "e30=", "WyJhIiwgImIiXQ==", "WyIyMDI1LTExLTEyIiwgIngiXQ==", "💥"])
    def test_what_is_no_cursor_is_refused(self, client: TestClient, cursor: str) -> None:
        response = client.get(LIST, params={"limit": 3, "cursor": cursor})
        assert response.status_code == (422 if cursor == "💥" else 400)
        assert "cursor" in response.json()["detail"]

    @pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", ""])
    def test_limit_has_a_range(self, client: TestClient, limit: str) -> None:
        assert client.get(LIST, params={"limit": limit}).status_code == 422


class TestGet:
    def test_fields(self, client: TestClient) -> None:
        first = upload(client, CSV).json()["dataset_id"]
        answer = upload(client, CSV, "again.csv").json()
        dataset = client.get(f"{LIST}/{answer['dataset_id']}").json()
        assert dataset == {
            "id": answer["dataset_id"],
            "filename": "again.csv",
            "size_bytes": len(CSV),
            "status": "uploaded",
            "created_at": answer["created_at"],
            "format": "instruction-response",
            "num_rows": 2,
            "duplicate_of": first,
            **FIRST_VERSION,
            "guessed": {},
            "ignored_columns": [],
            "notes": [],
            "reading_options": {},
            "sha256": hashlib.sha256(CSV).hexdigest(),
            "columns": ["instruction", "response"],
            "preview": [
                {"instruction": "What is Python?", "response": "A language."},
                {"instruction": "Explain LoRA", "response": "A technique."},
            ],
        }


@pytest.mark.parametrize("suffix", ["", "/download", "/rows", "/statistics"])
@pytest.mark.parametrize(
    "dataset_id", ["f8e7d3b2-1234-5678-9abc-def012345678", "..", "%2e%2e", "a%00b", "a" * 65, "' OR 1=1", "é", "%0d%0a"]
)
def test_unknown_id_is_not_found(client: TestClient, dataset_id: str, suffix: str) -> None:
    response = client.get(f"{LIST}/{dataset_id}{suffix}")
    assert (response.status_code, response.json()["status_code"]) == (404, 404)
    assert len(response.json()["detail"]) < 200


class TestDelete:
    def test_record_and_files_go(self, client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
        dataset_id = upload(client, CSV).json()["dataset_id"]
        storage.write_bytes(f"{dataset_keys.folder_key(dataset_id)}/statistics/0.json", b"{}")
        response = client.delete(f"{LIST}/{dataset_id}")
        assert (response.status_code, response.json()) == (200, {"dataset_id": dataset_id, "deleted": True})
        for _ in range(2):  # its files are there still, and then they aren't
            assert client.get(f"{LIST}/{dataset_id}").status_code == 404
            assert client.get(f"{LIST}/{dataset_id}/download").status_code == 404
            assert client.delete(f"{LIST}/{dataset_id}").status_code == 404
            assert client.get(LIST).json()["datasets"] == []
            tracker.step("deletions")
        assert is_untouched(storage, tracker)

    def test_other_datasets_stay(self, client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
        gone, stays = (upload(client, CSV).json()["dataset_id"] for _ in range(2))
        client.delete(f"{LIST}/{gone}")
        tracker.step("deletions")
        assert stored(storage) == {stays, f"{stays}/file", f"{stays}/rows.parquet"}
        assert client.get(f"{LIST}/{stays}/download").content == CSV

    @pytest.mark.parametrize("field", ["dataset_id", "validation_dataset_id"])
    def test_dataset_of_a_job_stays(
        self, client: TestClient, storage: Storage, tracker: InProcessTracker, field: str
    ) -> None:
        dataset_id = upload(client, CSV).json()["dataset_id"]
        tracker.put(job_record(**{field: dataset_id}))
        response = client.delete(f"{LIST}/{dataset_id}")
        assert response.status_code == 409
        assert "job-1" in response.json()["detail"]
        assert f"GET /api/jobs?dataset_id={dataset_id}" in response.json()["detail"]
        assert client.get(f"{LIST}/{dataset_id}/download").content == CSV

    def test_nothing_goes_while_the_tracker_is_away(
        self, client: TestClient, storage: Storage, tracker: InProcessTracker
    ) -> None:
        dataset_id = upload(client, CSV).json()["dataset_id"]
        tracker.fail_with(CapacityError("the job tracker is restarting"))
        assert client.delete(f"{LIST}/{dataset_id}").status_code == 503
        assert f"{dataset_id}/file" in stored(storage)


class TestDownload:
    def test_bytes_are_those_that_came(self, client: TestClient) -> None:
        content = b"text\n" + b"caf\xc3\xa9 \xf0\x9f\xa6\x99\n" * 9_000
        assert len(content) < 100_000
        dataset_id = upload(client, content).json()["dataset_id"]
        response = client.get(f"{LIST}/{dataset_id}/download")
        assert response.status_code == 200
        assert response.content == content
        assert response.headers["content-length"] == str(len(content))
        assert response.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["x-content-type-options"] == "nosniff"

    def test_file_comes_in_chunks(self, client: TestClient, storage: Storage, tracker: InProcessTracker) -> None:
        size_bytes = CHUNK_BYTES * 2 + 1
        storage.write_bytes(dataset_keys.file_key("dataset-1"), b"x" * size_bytes)
        tracker.put(dataset_record(size_bytes=size_bytes))
        with client.stream("GET", f"{LIST}/dataset-1/download") as response:
            assert sum(len(chunk) for chunk in response.iter_raw()) == size_bytes

    @pytest.mark.parametrize("content", [None, b"", b"x" * 9])
    def test_altered_file_is_an_error_and_not_half_a_file(
        self, client: TestClient, storage: Storage, tracker: InProcessTracker, content: bytes | None
    ) -> None:
        if content is not None:
            storage.write_bytes(dataset_keys.file_key("dataset-1"), content)
        tracker.put(dataset_record(size_bytes=10))
        response = client.get(f"{LIST}/dataset-1/download")
        assert response.status_code == 500
        assert "file" in response.json()["detail"]

    def test_name_comes_back(self, client: TestClient) -> None:
        dataset_id = upload(client, CSV, "données 🦙.csv").json()["dataset_id"]
        header = client.get(f"{LIST}/{dataset_id}/download").headers["content-disposition"]
        assert header.endswith("filename*=UTF-8''donn%C3%A9es%20%F0%9F%A6%99.csv")


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("rows.csv", "attachment; filename=\"rows.csv\"; filename*=UTF-8''rows.csv"),
        ("", "attachment; filename=\"dataset\"; filename*=UTF-8''dataset"),
        ('a"; x="b.csv', "attachment; filename=\"a__ x__b.csv\"; filename*=UTF-8''a%22%3B%20x%3D%22b.csv"),
        ("a\r\nSet-Cookie: b", "attachment; filename=\"a__Set-Cookie_ b\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b"),
        ("../é%41\\.csv", "attachment; filename=\"..___41_.csv\"; filename*=UTF-8''..%2F%C3%A9%2541%5C.csv"),
        ("\ud800.csv", "attachment; filename=\"_.csv\"; filename*=UTF-8''%3F.csv"),
    ],
)
def test_file_name_forges_no_header(filename: str, header: str) -> None:
    written = content_disposition(filename)
    assert written == header
    assert written.isascii()
    assert written.isprintable()


class TestRows:
    def rows(self, client: TestClient, content: bytes, filename: str = "rows.jsonl", **params: int) -> Any:
        dataset_id = upload(client, content, filename).json()["dataset_id"]
        response = client.get(f"{LIST}/{dataset_id}/rows", params=params)
        assert response.status_code == 200
        answer = response.json()
        assert answer.pop("dataset_id") == dataset_id
        return answer

    def test_conversations(self, client: TestClient) -> None:
        assert self.rows(client, CSV, "rows.csv", limit=1) == {
            "rows": [
                {
                    "row": 0,
                    "line": 2,
                    "messages": [
                        {"role": "user", "content": "What is Python?"},
                        {"role": "assistant", "content": "A language."},
                    ],
                    "text": None,
                    "rejected": None,
                    "truncated": False,
                }
            ],
            "num_rows": 2,
            "next_offset": 1,
        }

    def test_preferences(self, client: TestClient) -> None:
        row = self.rows(client, b"prompt,chosen,rejected\na,b,c\n", "rows.csv")["rows"][0]
        assert [message["content"] for message in row["messages"]] == ["a", "b"]
        assert (row["text"], row["rejected"]) == (None, "c")

    def test_tools_and_reasoning(self, client: TestClient) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": "{}"}}
        tools = [{"type": "function", "function": {"name": "stock"}}]
        messages = [
            {"role": "user", "content": "Is there rye?"},
            {"role": "assistant", "content": "", "reasoning_content": "I look.", "tool_calls": [call]},
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Hm.", "weight": 0},
            {"role": "assistant", "content": "Fo", "prefix": True},
            {"role": "assistant", "content": "ur.", "name": "Ada"},
        ]
        content = json.dumps({"messages": messages, "tools": tools, "chat_template_kwargs": {"a": 1}}).encode()
        (row,) = self.rows(client, content, "rows.jsonl")["rows"]
        assert (row["messages"], row["tools"], row["chat_template_kwargs"]) == (messages, tools, {"a": 1})
        assert "label" not in row

    def test_rejected_answers_with_more_than_text(self, client: TestClient) -> None:
        rejected = {"role": "assistant", "content": "c", "reasoning_content": "why"}
        content = json.dumps({"prompt": "a", "chosen": "b", "rejected": [rejected]}).encode()
        (row,) = self.rows(client, content, "rows.jsonl")["rows"]
        assert (row["rejected"], row["rejected_message"]) == ("c", rejected)

    def test_texts(self, client: TestClient) -> None:
        answer = self.rows(client, b'text\n\na\n"b\nc"\n', "rows.csv")
        assert [(row["row"], row["line"], row["messages"], row["text"]) for row in answer["rows"]] == [
            (0, 3, None, "a"),
            (1, 4, None, "b\nc"),
        ]

    @pytest.mark.parametrize(
        ("offset", "limit", "numbers", "next_offset"),
        [(0, 2, [0, 1], 2), (2, 100, [2, 3, 4], None), (3, 2, [3, 4], None), (5, 20, [], None), (10**30, 20, [], None)],
    )
    def test_pages(
        self, client: TestClient, offset: int, limit: int, numbers: list[int], next_offset: int | None
    ) -> None:
        answer = self.rows(client, b"text\n" + b"x\n" * 5, "rows.csv", offset=offset, limit=limit)
        assert [row["row"] for row in answer["rows"]] == numbers
        assert (answer["num_rows"], answer["next_offset"]) == (5, next_offset)

    @pytest.mark.parametrize(("num_chars", "is_cut"), [(MAX_STRING_CHARS, False), (MAX_STRING_CHARS + 1, True)])
    def test_long_strings_are_cut(self, client: TestClient, num_chars: int, is_cut: bool) -> None:
        text = self.rows(client, json.dumps({"text": "é" * num_chars}).encode())["rows"][0]
        assert (text["text"], text["truncated"]) == ("é" * MAX_STRING_CHARS, is_cut)
        chat = self.rows(client, json.dumps({"prompt": "a", "completion": "é" * num_chars}).encode())["rows"][0]
        assert (chat["messages"][1]["content"], chat["truncated"]) == ("é" * MAX_STRING_CHARS, is_cut)

    def test_long_conversations_are_cut(self, client: TestClient) -> None:
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        whole = self.rows(client, json.dumps({"messages": turn * (MAX_MESSAGES // 2)}).encode())["rows"][0]
        cut = self.rows(client, json.dumps({"messages": turn * MAX_MESSAGES}).encode())["rows"][0]
        assert [len(row["messages"]) for row in (whole, cut)] == [MAX_MESSAGES, MAX_MESSAGES]
        assert [row["truncated"] for row in (whole, cut)] == [False, True]

    @pytest.mark.parametrize("params", [{"offset": -1}, {"limit": 0}, {"limit": 101}, {"offset": "x"}])
    def test_parameters_have_ranges(
        self, client: TestClient, tracker: InProcessTracker, params: dict[str, Any]
    ) -> None:
        tracker.put(dataset_record())
        assert client.get(f"{LIST}/dataset-1/rows", params=params).status_code == 422

    def test_datasets_of_earlier_versions_can_be_read(
        self, client: TestClient, storage: Storage, tracker: InProcessTracker
    ) -> None:
        tracker.put(dataset_record())
        table = pa.table({"row": [0], "line": [2], "messages": pa.nulls(1), "text": ["x"]})
        with storage.writing(dataset_keys.rows_key("dataset-1")) as file:
            pq.write_table(table, file)
        assert client.get(f"{LIST}/dataset-1/rows").json()["rows"][0]["text"] == "x"

    @pytest.mark.parametrize("content", [None, b"", b"no parquet at all"])
    def test_missing_or_altered_rows_are_an_error(
        self, client: TestClient, storage: Storage, tracker: InProcessTracker, content: bytes | None
    ) -> None:
        tracker.put(dataset_record())
        if content is not None:
            storage.write_bytes(dataset_keys.rows_key("dataset-1"), content)
        response = client.get(f"{LIST}/dataset-1/rows")
        assert response.status_code == 500
        assert "rows.parquet" in response.json()["detail"]
