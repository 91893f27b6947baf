from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.lists.bounded_renderings import BoundedRenderings
from sienn_ray.datasets.rendered_schema import RenderingRequest
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import CapacityError, InvalidDatasetError
from tests.support.fakes_api import dataset_record
from tests.support.fakes_renderings import TEXT, FakeRenderings
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import CONTRACT_ID, TINY_COMMIT

ROUTE = "/api/datasets/dataset-1/rendered"


@pytest.fixture(autouse=True)
def record(tracker: InProcessTracker) -> None:
    tracker.put(dataset_record())


def request_of(**changes: object) -> RenderingRequest:
    fields = {
        "dataset_id": "dataset-1",
        "base_model": CONTRACT_ID,
        "row_kind": RowKind.CONVERSATION,
        "max_length": 512,
        "long_rows": "cut",
        "offset": 0,
        "limit": 1,
        "revision": TINY_COMMIT,
    }
    return RenderingRequest(**{**fields, **changes})  # type: ignore[arg-type]


def test_fields_and_defaults(client: TestClient, cached_base_model: str, renderings: FakeRenderings) -> None:
    response = client.get(ROUTE)
    assert response.status_code == 200
    answer = response.json()
    (row,) = answer.pop("rows")
    (example,) = row.pop("examples")
    assert answer == {
        "dataset_id": "dataset-1",
        "model_name": CONTRACT_ID,
        "revision": TINY_COMMIT,
        "max_length": 512,
        "long_rows": "cut",
        "num_rows": 3,
        "next_offset": 1,
    }
    assert row == {"row": 0, "line": 2, "fate": "cut", "num_tokens_left_out": 3, "num_examples": 1, "fault": None}
    assert example["text"] == TEXT
    (span,) = example["learned"]
    assert TEXT[span["start"] : span["end"]] == "Hello<|im_end|>"
    assert example["cut"] == {"position": span["end"], "num_tokens": 3}
    assert [mark["token"] for mark in example["special_tokens"]] == ["<|im_start|>", "<|im_end|>"]
    assert renderings.asked == [request_of()]


def test_pages_go_on_to_the_end(client: TestClient, cached_base_model: str, renderings: FakeRenderings) -> None:
    first = client.get(ROUTE, params={"limit": 2}).json()
    assert ([row["row"] for row in first["rows"]], first["next_offset"]) == ([0, 1], 2)
    last = client.get(ROUTE, params={"offset": 2, "limit": 2}).json()
    assert last["next_offset"] is None
    assert last["rows"][0]["fault"] == "the base model's chat template refuses a conversation: no"
    assert (last["rows"][0]["fate"], last["rows"][0]["examples"]) == (None, [])


def test_one_row(client: TestClient, cached_base_model: str, renderings: FakeRenderings) -> None:
    options: dict[str, str | int] = {"row": 1, "max_length": 256, "long_rows": "split", "revision": "main"}
    answer = client.get(ROUTE, params=options).json()
    assert ([row["row"] for row in answer["rows"]], answer["next_offset"]) == ([1], None)
    assert renderings.asked == [request_of(offset=1, max_length=256, long_rows="split")]


def test_what_the_template_refuses_is_said_with_its_row(client: TestClient, cached_base_model: str) -> None:
    response = client.get(ROUTE, params={"row": 2})
    assert response.status_code == 400
    assert response.json()["detail"] == "row 2 (line 4): the base model's chat template refuses a conversation: no"


def test_rows_that_arent_there(client: TestClient, cached_base_model: str) -> None:
    assert client.get("/api/datasets/nothing/rendered").status_code == 404
    response = client.get(ROUTE, params={"row": 3})
    assert (response.status_code, "the dataset has 3 rows" in response.json()["detail"]) == (400, True)


def test_a_row_and_a_page_are_two_questions(client: TestClient, cached_base_model: str) -> None:
    response = client.get(ROUTE, params={"row": 1, "limit": 5})
    assert response.status_code == 400
    assert "row=1" in response.json()["detail"]


@pytest.mark.parametrize(
    "query", ["row=-1", "offset=-1", "limit=0", "limit=21", "max_length=127", "max_length=2049", "long_rows=bend"]
)
def test_values_have_limits(client: TestClient, cached_base_model: str, query: str) -> None:
    assert client.get(f"{ROUTE}?{query}").status_code == 422


def test_preferences_cant_be_split(client: TestClient, tracker: InProcessTracker, cached_base_model: str) -> None:
    tracker.put(dataset_record(id="pairs", format="preference", columns=["prompt", "chosen", "rejected"]))
    response = client.get("/api/datasets/pairs/rendered", params={"long_rows": "split"})
    assert response.status_code == 400
    assert "set long_rows to cut, drop or fail" in response.json()["detail"]


@pytest.mark.parametrize("model_name", ["", "../etc", "https://hub/model", "nobody/nothing"])
def test_an_unknown_base_model_is_refused(
    client: TestClient, hub_cache: Path, renderings: FakeRenderings, model_name: str
) -> None:
    assert client.get(ROUTE, params={"model_name": model_name}).status_code == 400
    assert renderings.asked == []


@pytest.mark.parametrize(
    ("error", "status"), [(InvalidDatasetError("it leaves out answers"), 400), (CapacityError("it was lost"), 503)]
)
def test_errors_keep_their_words(
    client: TestClient, cached_base_model: str, renderings: FakeRenderings, error: Exception, status: int
) -> None:
    renderings.error = error
    response = client.get(ROUTE)
    assert (response.status_code, response.json()["detail"]) == (status, str(error))


class TestBounds:
    def test_only_some_are_rendered_at_once(self) -> None:
        async def ask() -> int:
            renderings = FakeRenderings()
            renderings.hold()
            bounded = BoundedRenderings(renderings, 60.0)
            tasks = [asyncio.create_task(bounded.render(request_of())) for _ in range(5)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert renderings.num_running == 0
            return renderings.max_running

        assert asyncio.run(ask()) == 2

    def test_who_waits_too_long_is_told(self) -> None:
        renderings = FakeRenderings()
        renderings.hold()
        with pytest.raises(CapacityError, match="SIENN_STATISTICS_TIMEOUT_S"):
            asyncio.run(BoundedRenderings(renderings, 0.01).render(request_of()))
        assert renderings.num_running == 0
