"""Each of the cases that people have brought comes to the right end: it is taken in full, or its cause is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.cases import answering, load_cases, run_case

# Files whose forms aren't read yet.
OPEN = frozenset(
    {
        "csv-semicolon-no-commas",
        "csv-tab",
        "csv-space-before-quote",
        "csv-repeated-header",
        "jsonl-lfs-pointer",
        "jsonl-pretty-printed",
        "jsonl-array-one-object-a-line",
        "jsonl-lines-end-with-commas",
        "jsonl-bom-in-the-middle",
        "jsonl-cr-only",
    }
)


@pytest.fixture(scope="module")
def client(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with answering(tiny_model_folder, tmp_path_factory.mktemp("cases")) as client:
        yield client


@pytest.mark.parametrize("case", [case for case in load_cases() if case["id"] not in OPEN], ids=lambda case: case["id"])
def test_a_case_comes_to_the_right_end(client: TestClient, case: dict[str, Any]) -> None:
    outcome = run_case(client, case)
    assert outcome.fault == "", outcome.words
