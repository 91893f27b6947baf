"""Usage over the whole application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.access.principals import Scope
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from tests.support.fakes_api import BASE_MODEL, FakeEngines, dataset_record, job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.test_authentication import ADMIN, ADMIN_KEY, key_of

ASKED = {"job_id": "ada-job", "prompt": "What is LoRA?"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY, metrics_flush_s=3600)


@pytest.fixture
def tracker(tracker: InProcessTracker) -> InProcessTracker:
    tracker.put(dataset_record(id="ada-data", owner="ada"))
    tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.COMPLETED))
    return tracker


@pytest.fixture
def ada(tracker: InProcessTracker) -> dict[str, str]:
    return {"X-API-Key": key_of(tracker, "ada", *Scope, key_id="key-of-ada", rate_limits="10000/minute")}


@pytest.fixture
def ada_alone(tracker: InProcessTracker) -> dict[str, str]:
    scopes = set(Scope) - {Scope.ADMIN}
    return {"X-API-Key": key_of(tracker, "ada", *scopes, key_id="plain-key", rate_limits="10000/minute")}


def used(client: TestClient, headers: dict[str, str], **query: Any) -> dict[str, Any]:
    answered = client.get("/api/usage", headers=headers, params=query)
    assert answered.status_code == 200, answered.text
    body: dict[str, Any] = answered.json()
    return body


def test_answers_count_for_the_key_and_the_adapter(client: TestClient, ada_alone: dict[str, str]) -> None:
    for _ in range(3):
        assert client.post("/api/test-model", json=ASKED, headers=ada_alone).status_code == 200
    (row,) = used(client, ada_alone, model="ada-job", group_by=["key", "adapter"])["rows"]
    assert (row["owner"], row["key_id"], row["model_name"], row["adapter_id"]) == (
        "ada",
        "plain-key",
        BASE_MODEL,
        "ada-job",
    )
    assert (row["num_answers"], row["prompt_tokens"], row["completion_tokens"]) == (3, 27, 18)
    assert row["engine_s"] == pytest.approx(3 * 2.34049)


def test_every_way_to_ask_counts(client: TestClient, ada_alone: dict[str, str]) -> None:
    chat = {"model": "ada-job", "messages": [{"role": "user", "content": "a"}], "n": 2}
    for path, body, num_answers in (
        ("/api/test-model", {**ASKED, "stream": True}, 1),
        ("/api/compare-models", {"job_ids": ["ada-job"], "prompt": "a"}, 2),
        ("/v1/chat/completions", chat, 2),
        ("/v1/chat/completions", {**chat, "stream": True}, 2),
        ("/v1/completions", {"model": "ada-job", "prompt": ["a", "b"]}, 2),
    ):
        before = used(client, ada_alone)["total"]["num_answers"]
        assert client.post(path, json=body, headers=ada_alone).status_code == 200
        assert used(client, ada_alone)["total"]["num_answers"] == before + num_answers, path


def test_a_stream_that_fails_counts_with_what_was_sent(
    client: TestClient, ada_alone: dict[str, str], engines: FakeEngines
) -> None:
    engines.late_error = CapacityError("the engine is gone")
    client.post("/api/test-model", json={**ASKED, "stream": True}, headers=ada_alone)
    (row,) = used(client, ada_alone, model="ada-job")["rows"]
    assert (row["num_answers"], row["prompt_tokens"], row["completion_tokens"]) == (1, 8, 9)


def test_requests_and_bytes_count(client: TestClient, ada_alone: dict[str, str]) -> None:
    body = b'{"instruction": "a", "response": "b"}\n'
    uploaded = client.post("/api/upload-dataset", files={"file": ("a.jsonl", body)}, headers=ada_alone)
    path = f"/api/datasets/{uploaded.json()['dataset_id']}/download"
    before = used(client, ada_alone)["total"]
    assert before["uploaded_bytes"] > len(body)
    assert client.get(path, headers=ada_alone).content == body
    after = used(client, ada_alone)["total"]
    assert after["num_requests"] == before["num_requests"] + 2, "the download, and the look before"
    assert after["downloaded_bytes"] >= before["downloaded_bytes"] + len(body)
    client.get("/api/jobs")  # nobody's
    assert [row["owner"] for row in used(client, ADMIN, group_by=["owner"])["rows"]] == ["ada"]


def test_owners_see_their_own_and_an_admin_sees_all(client: TestClient, tracker: InProcessTracker) -> None:
    keys = {owner: {"X-API-Key": key_of(tracker, owner, Scope.READ)} for owner in ("ada", "bob")}
    for headers in keys.values():
        client.get("/api/jobs", headers=headers)
    assert [row["owner"] for row in used(client, keys["bob"], group_by=["owner"])["rows"]] == ["bob"]
    assert client.get("/api/usage?owner=ada", headers=keys["bob"]).status_code == 403
    seen = [row["owner"] for row in used(client, ADMIN, group_by=["owner"])["rows"]]
    assert seen == ["ada", "bob"]
    assert [row["owner"] for row in used(client, ADMIN, owner="ada", group_by=["owner"])["rows"]] == ["ada"]


def test_pages(client: TestClient, tracker: InProcessTracker) -> None:
    for number in range(5):
        client.get("/api/jobs", headers={"X-API-Key": key_of(tracker, f"owner-{number}", Scope.READ)})
    first = used(client, ADMIN, group_by=["owner"], limit=3)
    assert (len(first["rows"]), first["count"], first["next_offset"]) == (3, 5, 3)
    used_by_admin = used(client, ADMIN, group_by=["owner"], limit=3, offset=3)
    assert used_by_admin["next_offset"] is None


@pytest.mark.parametrize(
    "query",
    [
        "from=2026-12-01&to=2026-11-01",
        "from=yesterday",
        "to=0",
        "to=1764374400",
        "from=2026-13-01",
        "group_by=month",
        "limit=0",
    ],
)
def test_what_is_wrong_is_named(client: TestClient, query: str) -> None:
    assert client.get(f"/api/usage?{query}", headers=ADMIN).status_code in {400, 422}


def test_what_was_not_taken_is_sent_again_once(
    client: TestClient, ada_alone: dict[str, str], tracker: InProcessTracker
) -> None:
    client.get("/api/jobs", headers=ada_alone)
    tracker.fail_with(CapacityError("the job tracker is restarting"))
    assert client.get("/api/usage", headers=ada_alone).status_code == 503
    tracker.fail_with(None)
    assert used(client, ada_alone)["total"]["num_requests"] == 1, "the batch that wasn't taken, alone"
    assert used(client, ada_alone)["total"]["num_requests"] == 3, "and what came since, once"
