"""Versions of a dataset: appended, replaced, listed, compared, downloaded, deleted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.storage import Storage
from tests.support.fakes_api import job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.starting import START
from tests.unit.api.uploading import UPLOAD, stored

FIRST = b"instruction,response\nhi,hello\nbye,see you\n"
MORE = b'{"prompt": "thanks", "completion": "welcome"}\n'
OTHER = b"instruction,response\nhi,good day\nwhy,because\n"


def upload(client: TestClient, content: bytes = FIRST, name: str = "talk.csv") -> str:
    answer = client.post(UPLOAD, files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    dataset_id: str = answer.json()["dataset_id"]
    return dataset_id


def add(
    client: TestClient, dataset_id: str, change: str, content: bytes, name: str = "more.jsonl", **query: Any
) -> Any:
    return client.post(
        f"/api/datasets/{dataset_id}/versions", params={"change": change, **query}, files={"file": (name, content)}
    )


def answers(client: TestClient, dataset_id: str) -> list[str]:
    rows = client.get(f"/api/datasets/{dataset_id}/rows").json()["rows"]
    return [row["text"] or row["messages"][-1]["content"] for row in rows]


class TestAppend:
    def test_new_version_has_all_rows_and_the_old_one_stays(self, client: TestClient) -> None:
        first = upload(client)
        answer = add(client, first, "append", MORE).json()
        assert (answer["version"], answer["version_of"], answer["appended_to"]) == (2, first, first)
        assert (answer["change"], answer["num_rows"], answer["format"]) == ("append", 3, "chat")
        assert answer["filename"] == "talk.jsonl"
        assert answers(client, answer["dataset_id"]) == ["hello", "see you", "welcome"]
        assert answers(client, first) == ["hello", "see you"]
        shown = client.get(f"/api/datasets/{answer['dataset_id']}").json()
        assert (shown["version"], shown["columns"]) == (2, ["messages"])

    def test_rows_are_numbered_anew(self, client: TestClient) -> None:
        version = add(client, upload(client), "append", MORE).json()["dataset_id"]
        rows = client.get(f"/api/datasets/{version}/rows").json()["rows"]
        assert [(row["row"], row["line"]) for row in rows] == [(0, 1), (1, 2), (2, 3)]

    def test_download_is_jsonl_that_makes_the_same_rows(self, client: TestClient) -> None:
        version = add(client, upload(client), "append", MORE).json()
        file = client.get(f"/api/datasets/{version['dataset_id']}/download")
        assert len(file.content) == version["size_bytes"]
        assert [len(json.loads(line)["messages"]) for line in file.content.splitlines()] == [2, 2, 2]
        again = upload(client, file.content, "again.jsonl")
        assert answers(client, again) == ["hello", "see you", "welcome"]
        assert client.get(f"/api/datasets/{again}").json()["sha256"] == version["sha256"]

    def test_goes_on_from_the_newest_version_whichever_is_named(self, client: TestClient) -> None:
        first = upload(client)
        second = add(client, first, "append", MORE).json()["dataset_id"]
        third = add(client, first, "append", OTHER, "more.csv").json()
        assert (third["version"], third["appended_to"], third["num_rows"]) == (3, second, 5)

    def test_leaves_nothing_but_the_versions(self, client: TestClient, storage: Storage) -> None:
        first = upload(client)
        second = add(client, first, "append", MORE).json()["dataset_id"]
        assert {name.split("/")[0] for name in stored(storage)} == {first, second}

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b'{"text": "Once"}\n', "conversations and plain text can't be mixed"),
            (b'{"prompt": "thanks"', "line 1"),
        ],
    )
    def test_what_does_not_fit_is_refused_and_leaves_nothing(
        self, client: TestClient, storage: Storage, content: bytes, words: str
    ) -> None:
        first = upload(client)
        before = stored(storage)
        answer = add(client, first, "append", content)
        assert answer.status_code == 400
        assert words in answer.json()["detail"]
        assert stored(storage) == before
        assert client.get(f"/api/datasets/{first}/versions").json()["count"] == 1

    def test_a_repeated_request_appends_nothing_twice(self, client: TestClient) -> None:
        first = upload(client)
        assert add(client, first, "append", MORE, base_version=1).status_code == 201
        again = add(client, first, "append", MORE, base_version=1)
        assert again.status_code == 409
        assert f"version 2 is the newest of dataset {first}, not 1" in again.json()["detail"]

    @pytest.mark.parametrize("change", ["append", "replace"])
    def test_of_two_requests_at_once_one_is_refused(
        self, client: TestClient, tracker: InProcessTracker, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        first = upload(client)
        before = asyncio.run(tracker.dataset_versions(first))

        async def as_before(*_: Any) -> Any:
            return before

        assert add(client, first, change, MORE, base_version=1).status_code == 201
        monkeypatch.setattr(InProcessTracker, "dataset_versions", as_before, raising=False)
        answer = add(client, first, change, MORE, base_version=1)
        assert answer.status_code == 409, answer.text

    @pytest.mark.parametrize("kind", ["text", "preference"])
    def test_other_kinds_of_rows(self, client: TestClient, kind: str) -> None:
        row = {"text": "Once"} if kind == "text" else {"prompt": "a", "chosen": "b", "rejected": "c"}
        line = json.dumps(row).encode() + b"\n"
        version = add(client, upload(client, line, "rows.jsonl"), "append", line + line).json()
        assert (version["num_rows"], version["format"]) == (3, kind)
        file = client.get(f"/api/datasets/{version['dataset_id']}/download").content
        assert client.get(f"/api/datasets/{upload(client, file, 'b.jsonl')}").json()["num_rows"] == 3


class TestReplace:
    def test_new_version_has_the_file_alone_as_it_came(self, client: TestClient) -> None:
        first = upload(client)
        second = add(client, first, "replace", OTHER, "new.csv").json()
        assert (second["version"], second["change"], second["appended_to"]) == (2, "replace", None)
        assert answers(client, second["dataset_id"]) == ["good day", "because"]
        assert client.get(f"/api/datasets/{second['dataset_id']}/download").content == OTHER

    def test_number_of_a_deleted_version_is_not_given_again(self, client: TestClient) -> None:
        first = upload(client)
        second = add(client, first, "replace", OTHER, "new.csv").json()["dataset_id"]
        assert client.delete(f"/api/datasets/{second}").status_code == 200
        assert add(client, first, "replace", OTHER, "new.csv").json()["version"] == 3
        assert client.get(f"/api/datasets/{first}/versions").json()["count"] == 2


class TestList:
    def test_all_versions_by_the_id_of_any(self, client: TestClient) -> None:
        first = upload(client)
        second = add(client, first, "append", MORE).json()["dataset_id"]
        for dataset_id in (first, second):
            answer = client.get(f"/api/datasets/{dataset_id}/versions").json()
            assert (answer["dataset_id"], answer["count"]) == (first, 2)
            assert [(each["id"], each["version"]) for each in answer["versions"]] == [(first, 1), (second, 2)]

    def test_unknown_dataset(self, client: TestClient) -> None:
        assert client.get("/api/datasets/other/versions").status_code == 404
        assert add(client, "other", "append", MORE).status_code == 404


class TestDiff:
    def test_added_removed_and_changed_rows(self, client: TestClient) -> None:
        first = upload(client)
        add(client, first, "replace", OTHER, "new.csv")
        found = client.get(f"/api/datasets/{first}/diff").json()
        numbers = {name: found[name] for name in ("num_added", "num_removed", "num_changed", "num_same")}
        assert numbers == {"num_added": 1, "num_removed": 1, "num_changed": 1, "num_same": 0}
        assert (found["from_version"], found["to_version"]) == (1, 2)
        assert found["added"][0]["messages"][-1]["content"] == "because"
        assert found["removed"][0]["messages"][-1]["content"] == "see you"
        (change,) = found["changed"]
        assert [change[side]["messages"][-1]["content"] for side in ("before", "after")] == ["hello", "good day"]

    def test_appended_rows_are_added_and_all_others_the_same(self, client: TestClient) -> None:
        first = upload(client)
        add(client, first, "append", MORE)
        for _ in range(2):  # computed, and kept
            found = client.get(f"/api/datasets/{first}/diff", params={"from_version": 1, "to_version": 2}).json()
            assert (found["num_added"], found["num_same"], found["num_removed"], found["num_changed"]) == (1, 2, 0, 0)

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ({}, "version 1 has none before it"),
            ({"from_version": 1, "to_version": 7}, "version 7 isn't there; this dataset has versions 1"),
        ],
    )
    def test_versions_that_are_not_there(self, client: TestClient, query: dict[str, int], words: str) -> None:
        answer = client.get(f"/api/datasets/{upload(client)}/diff", params=query)
        assert answer.status_code == 400
        assert words in answer.json()["detail"]


@pytest.mark.usefixtures("cached_base_model")
class TestJobs:
    def test_a_job_is_pinned_to_its_version_and_told_of_a_newer_one(self, client: TestClient) -> None:
        first = upload(client)
        second = add(client, first, "append", MORE).json()["dataset_id"]
        started = client.post(START, json={"dataset_id": first}).json()
        assert started["warning"] == f"dataset {first} is version 1, and version 2 is there: {second}"
        newest = client.post(START, json={"dataset_id": second}).json()
        assert newest["warning"] is None
        for answer, version in ((started, 1), (newest, 2)):
            (dataset,) = client.get(f"/api/jobs/{answer['job_id']}").json()["meta"]["datasets"]
            assert dataset["version"] == version


class TestDelete:
    def test_with_the_first_version_go_all(self, client: TestClient) -> None:
        first = upload(client)
        second = add(client, first, "append", MORE).json()["dataset_id"]
        assert client.delete(f"/api/datasets/{first}").status_code == 200
        assert [client.get(f"/api/datasets/{each}").status_code for each in (first, second)] == [404, 404]

    def test_a_job_of_any_version_keeps_all(self, client: TestClient, tracker: InProcessTracker) -> None:
        first = upload(client)
        second = add(client, first, "append", MORE).json()["dataset_id"]
        tracker.put(job_record(id="job-7", dataset_id=second))
        answer = client.delete(f"/api/datasets/{first}")
        assert answer.status_code == 409
        assert f"1 job uses dataset {second}: job-7" in answer.json()["detail"]
        assert client.get(f"/api/datasets/{first}").status_code == 200
