"""What can't be an id is not found, and goes no further."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.schemas.ids import dataset_id, job_id
from sienn_ray.errors import NotFoundError
from sienn_ray.jobs.ids import shown
from tests.support.fakes_api import job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.test_error_shape import detail_of

NO_IDS = ["a.b", "a b", "..", "a" * 65, "é", "\0", "a\r\nb", "🦙", "a%2fb", "'; drop table jobs;--", "job-1\n"]


@pytest.mark.parametrize("value", ["a", "job-1", "A_9", "a" * 64, "f8e7d3b2-1234-5678-9abc-def012345678"])
def test_id_is_kept_as_it_is(value: str) -> None:
    assert (dataset_id(value), job_id(value)) == (value, value)


@pytest.mark.parametrize("value", ["", *NO_IDS])
def test_anything_else_is_not_found(value: str) -> None:
    with pytest.raises(NotFoundError, match=r"^Dataset .* not found$"):
        dataset_id(value)
    with pytest.raises(NotFoundError, match=r"^Job .* not found$"):
        job_id(value)


@pytest.mark.parametrize("value", NO_IDS)
def test_it_does_not_reach_the_tracker(client: TestClient, tracker: InProcessTracker, value: str) -> None:
    tracker.put(job_record())
    quoted = quote(value, safe="")
    for response in (
        client.post(f"/api/jobs/{quoted}/cancel"),
        client.delete(f"/api/datasets/{quoted}"),
        client.get(f"/api/download-model/{quoted}"),
        client.post("/api/test-model", json={"job_id": value, "prompt": "a"}),
        client.post("/api/start-finetuning", json={"dataset_id": value}),
    ):
        assert detail_of(response, 404).isprintable()
    assert tracker.calls == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("données 🦙", "données 🦙"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202egpj", "\\u202egpj"),
        ("\ud800", "\\ud800"),
        ("it's", "it's"),
        ("a" * 81, "a" * 80 + "…"),
    ],
)
def test_text_of_users_is_shown_escaped_and_cut(text: str, expected: str) -> None:
    assert shown(text) == expected
