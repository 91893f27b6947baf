"""What a service does that was set to leave nothing lying about, and to let nobody wait."""

from __future__ import annotations

import httpx2

from tests.integration.service import Service, wait_for
from tests.integration.swept import LEFT_LONG_AGO, LEFT_TODAY
from tests.support.tiny_model import TINY_ID


def test_datasets_that_were_left_long_ago_are_cleared_away_at_the_start(careful: Service) -> None:
    datasets = careful.storage / "datasets"
    wait_for(lambda: not (datasets / LEFT_LONG_AGO).exists(), "the leftovers' end", 30.0)
    assert (datasets / LEFT_TODAY).exists()


def test_impatient_client_comes_back_for_the_result(careful: Service) -> None:
    dataset_id = careful.upload("text\nOnce upon a time\nOnce upon a time\n", "rows.csv")
    url = f"{careful.url}/api/datasets/{dataset_id}/statistics?model_name={TINY_ID}"
    response = httpx2.get(url, timeout=30.0)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    found = wait_for(lambda: (answer := httpx2.get(url, timeout=30.0)).is_success and answer.json(), "it", 120.0)
    assert (found["num_rows"], found["duplicates"]) == (2, {"num_rows": 1, "lines": [3]})
    assert found["tokens"]["prompt"]["max"] == 0
    deleted = httpx2.delete(f"{careful.url}/api/datasets/{dataset_id}", timeout=30.0)
    assert deleted.json() == {"dataset_id": dataset_id, "deleted": True}
    wait_for(lambda: not (careful.storage / "datasets" / dataset_id).exists(), "the end of its files", 10.0)
