from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.errors import NotFoundError
from sienn_ray.jobs.ids import check_id, is_id, not_found
from sienn_ray.jobs.store.store import Store
from tests.support.fakes_jobs import job_record

STRANGE = [
    "",
    " ",
    "a b",
    "job-1\n",
    "\n",
    "../job-1",
    "job/1",
    "job.1",
    "a\0b",
    "\ud800",
    "größe",
    "⛴",
    "\u0661",  # a digit, but none of ASCII
    "' OR '1'='1",
    "a" * 65,
    "x" * 10_000,
]


@pytest.mark.parametrize("text", ["a", "job-1", "A_b-9", "f8e7d3b2-1234-5678-9abc-def012345678", "a" * 64])
def test_ordinary_ids(text: str) -> None:
    assert is_id(text)
    check_id("Job", text)
    assert not_found("Dataset", text).message == f"Dataset {text} not found"


@pytest.mark.parametrize("text", STRANGE)
def test_strange_ids_are_not_found(text: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        check_id("Job", text)
    message = raised.value.message
    assert message.startswith("Job ")
    assert message.endswith(" not found")
    assert message.isprintable()
    assert len(message) < 120
    message.encode()  # what can't be encoded couldn't be answered either


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, text: store.datasets.get(text),
        lambda store, text: store.datasets.delete(text),
        lambda store, text: store.jobs.add(job_record(dataset_id=text)),
        lambda store, text: store.jobs.add(job_record(validation_dataset_id=text)),
        lambda store, text: store.jobs.get(text),
        lambda store, text: store.jobs.cancel(text),
        lambda store, text: store.jobs.retry(text),
        lambda store, text: store.jobs.delete(text),
        lambda store, text: store.jobs.events(text, 0, 10),
        lambda store, text: store.jobs.metric_points(text, 10),
    ],
)
def test_strange_ids_end_nowhere_else(store: Store, ask: Any) -> None:
    for text in STRANGE:
        with pytest.raises(NotFoundError):
            ask(store, text)
