from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray.api.lists.shared_statistics import SharedStatistics
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.errors import CapacityError, InvalidDatasetError, SiennError
from sienn_ray.storage import Storage
from tests.support.fakes_api import dataset_record
from tests.support.fakes_statistics import FakeStatistics, statistics_of
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import CONTRACT_ID, TINY_COMMIT

ROUTE = "/api/datasets/dataset-1/statistics"


@pytest.fixture(autouse=True)
def record(tracker: InProcessTracker) -> None:
    tracker.put(dataset_record())


def spread(first: int) -> dict[str, Any]:
    return {"total": first, "mean": first + 0.25, "min": 1, "p50": first + 1, "p95": first + 2, "max": first + 3}


def test_fields_and_defaults(client: TestClient, cached_base_model: str, statistics: FakeStatistics) -> None:
    response = client.get(ROUTE)
    assert response.status_code == 200
    assert response.json() == {
        "dataset_id": "dataset-1",
        "model_name": CONTRACT_ID,
        "max_length": 512,
        "num_rows": 1319,
        "characters": spread(100),
        "tokens": {**spread(200), "prompt": spread(300), "completion": spread(400)},
        "num_rows_over_max_length": 7,
        "num_tokens_over_max_length": 93,
        "num_rows_dropped": 5,
        "duplicates": {"num_rows": 3, "lines": [11, 12, 13]},
        "empty_fields": {"instruction": 0, "response": 1},
    }
    assert statistics.asked == [
        StatisticsRequest("dataset-1", CONTRACT_ID, 512, row_kind=RowKind.CONVERSATION, num_columns=2)
    ]


def test_second_answer_is_the_kept_one(client: TestClient, cached_base_model: str, statistics: FakeStatistics) -> None:
    answers = [client.get(ROUTE, params={"max_length": 256}).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(statistics.asked) == 1
    assert client.get(ROUTE, params={"max_length": 257}).json()["max_length"] == 257
    assert len(statistics.asked) == 2


def test_kept_answer_needs_no_hub(client: TestClient, hub_cache: Path, storage: Storage) -> None:
    request = StatisticsRequest("dataset-1", "gone/model", 512, row_kind=RowKind.CONVERSATION, num_columns=2)
    storage.write_bytes(request.key, statistics_of(request).model_dump_json().encode())
    assert client.get(ROUTE, params={"model_name": "gone/model"}).status_code == 200


def test_a_revision_is_counted_at_its_commit(
    client: TestClient, cached_base_model: str, statistics: FakeStatistics
) -> None:
    for revision in ("main", TINY_COMMIT):
        assert client.get(ROUTE, params={"revision": revision}).status_code == 200
    assert [request.revision for request in statistics.asked] == [TINY_COMMIT]


def test_text_is_measured_as_text(
    client: TestClient, cached_base_model: str, tracker: InProcessTracker, statistics: FakeStatistics
) -> None:
    tracker.put(dataset_record(format="text", columns=["text"]))
    client.get(ROUTE)
    assert statistics.asked[0].row_kind is RowKind.TEXT


def test_empty_fields_of_datasets_of_earlier_versions_are_unknown(client: TestClient, storage: Storage) -> None:
    request = StatisticsRequest("dataset-1", CONTRACT_ID, 512, row_kind=RowKind.CONVERSATION, num_columns=2)
    kept = statistics_of(request).model_copy(update={"num_empty": None})
    storage.write_bytes(request.key, kept.model_dump_json().encode())
    assert client.get(ROUTE).json()["empty_fields"] is None


def test_columns_whose_names_were_cut_alike_are_counted_together(
    client: TestClient, cached_base_model: str, tracker: InProcessTracker
) -> None:
    tracker.put(dataset_record(columns=["text", "x…", "x…"]))
    assert client.get(ROUTE).json()["empty_fields"] == {"text": 0, "x…": 3}


@pytest.mark.parametrize("model_name", ["", "../etc", "https://hub/model", "a" * 5_000, "nobody/nothing", "a\0b", "💥"])
def test_unknown_base_model_is_refused(
    client: TestClient, hub_cache: Path, statistics: FakeStatistics, model_name: str
) -> None:
    response = client.get(ROUTE, params={"model_name": model_name})
    assert response.status_code == 400
    assert "model" in response.json()["detail"]
    assert len(response.json()["detail"]) < 1_000
    assert statistics.asked == []


@pytest.mark.parametrize("max_length", ["127", "2049", "-1", "many", "1e3", "9" * 5_000])
def test_max_length_has_a_range(client: TestClient, max_length: str) -> None:
    assert client.get(ROUTE, params={"max_length": max_length}).status_code == 422


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidDatasetError("the base model's chat template refuses a conversation"), 400),
        (CapacityError("the computation was lost"), 503),
        (SiennError("the statistics couldn't be computed"), 500),
    ],
)
def test_errors_keep_their_words(
    client: TestClient, cached_base_model: str, statistics: FakeStatistics, error: SiennError, status: int
) -> None:
    statistics.error = error
    response = client.get(ROUTE)
    assert response.status_code == status
    assert response.json()["detail"].startswith(error.message)


def test_long_computation_asks_to_come_back(
    app: FastAPI, client: TestClient, cached_base_model: str, storage: Storage
) -> None:
    class Endless:
        async def compute(self, request: StatisticsRequest) -> DatasetStatistics:
            import asyncio

            await asyncio.Event().wait()
            raise AssertionError

    app.state.statistics = SharedStatistics(Endless(), storage, timeout_s=0.05)
    response = client.get(ROUTE)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "30"
    assert "SIENN_STATISTICS_TIMEOUT_S" in response.json()["detail"]


def test_statistics_go_with_the_dataset(
    client: TestClient, cached_base_model: str, storage: Storage, tracker: InProcessTracker
) -> None:
    client.get(ROUTE)
    assert storage.exists("datasets/dataset-1/statistics")
    client.delete("/api/datasets/dataset-1")
    tracker.step("deletions")
    assert not storage.exists("datasets/dataset-1")
