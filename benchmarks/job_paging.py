"""What a page of jobs costs at the tracker when there are 10,000 of them.

Claim: a page of `LIMIT` takes less than 50 ms, wherever it is and whatever it is filtered by, also when all jobs wait
in the queue and each says its place. The largest page that the API gives stands beside it. The peer loads all jobs and
slices the page out of them, in the same process, in turns; the database is SQLite, the jobs carry facts as real runs
leave them; medians of `ROUNDS` rounds.

Run: `python benchmarks/job_paging.py`
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import DatasetRecord, JobPage, JobQuery, JobRecord, JobStatus
from sienn_ray.jobs.store.records import insert_job
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.tables import jobs
from sienn_ray.training.config import TrainingConfig

NUM_JOBS = 10_000
LIMIT = 100
ROUNDS = 15
CLAIM_MS = 50
MOMENT = datetime(2025, 3, 4, tzinfo=UTC)
BASE_MODELS = ["HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/sienn.db")
        store.datasets.add(dataset())
        with store.database.writing() as connection:
            for number in range(NUM_JOBS):
                insert_job(connection, job(number))
        print(f"{NUM_JOBS} jobs, {facts_bytes()} bytes of facts each; a page has {LIMIT}, medians of {ROUNDS} rounds")
        compare(store, JobStatus.COMPLETED)
        with store.database.writing() as connection:
            connection.execute(sa.update(jobs).values(status=JobStatus.PENDING.value, ended_at=None))
        print("\nThe same, all of them waiting")
        compare(store, JobStatus.PENDING)
        store.close()


def compare(store: Store, usual: JobStatus) -> None:
    cursors = {share: cursor_at(store, share) for share in (0.5, 0.99)}
    queries = {
        "first page": JobQuery(limit=LIMIT),
        "page in the middle": JobQuery(limit=LIMIT, cursor=cursors[0.5]),
        "page near the end": JobQuery(limit=LIMIT, cursor=cursors[0.99]),
        "of a status (most)": JobQuery(limit=LIMIT, status=usual),
        "of a status (few)": JobQuery(limit=LIMIT, status=JobStatus.FAILED),
        "of a label (half)": JobQuery(limit=LIMIT, labels={"team": "team-0"}),
        "of a label (few)": JobQuery(limit=LIMIT, labels={"run": "run-7"}),
        "of two labels, deep": JobQuery(limit=LIMIT, labels={"team": "team-1", "run": "run-7"}, cursor=cursors[0.5]),
        "of a dataset (all)": JobQuery(limit=LIMIT, dataset_id=dataset().id),
        "of a base model (half)": JobQuery(limit=LIMIT, base_model=BASE_MODELS[0]),
        "of a name (one)": JobQuery(limit=LIMIT, name="job 77"),
        "largest page (1,000)": JobQuery(limit=1000),
    }
    contenders: dict[str, Callable[[], object]] = {
        name: (lambda query=query: store.jobs.page(query)) for name, query in queries.items()
    }
    baseline = "load all and slice"
    contenders[baseline] = lambda: slice_of_all(store)
    for contender in contenders.values():
        contender()  # warms caches up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            seconds[name].append(timed(contender))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        ratio = medians[baseline] / median
        verdict = "" if name == baseline or median * 1000 < CLAIM_MS else f"   over {CLAIM_MS} ms"
        print(f"{name:26} {median * 1000:9.1f} ms   baseline takes {ratio:7.1f} x as long{verdict}")


def slice_of_all(store: Store) -> Sequence[JobRecord]:
    return store.jobs.page(JobQuery()).jobs[:LIMIT]


def cursor_at(store: Store, share: float) -> str | None:
    """The cursor behind this share of the jobs."""
    cursor, seen = None, 0
    while seen < NUM_JOBS * share:
        page: JobPage = store.jobs.page(JobQuery(limit=LIMIT, cursor=cursor))
        cursor, seen = page.next_cursor, seen + len(page.jobs)
    return cursor


def dataset() -> DatasetRecord:
    return DatasetRecord(
        id="f8e7d3b2-1234-5678-9abc-def012345678",
        filename="rows.jsonl",
        size_bytes=1_000_000,
        sha256="0" * 64,
        format="instruction-response",
        num_rows=1000,
        columns=["instruction", "response"],
        preview=[],
        created_at=MOMENT,
    )


def job(number: int) -> JobRecord:
    status = JobStatus.FAILED if number % 50 == 0 else JobStatus.COMPLETED
    started_at = MOMENT + timedelta(minutes=number)
    return JobRecord(
        id=str(uuid.UUID(int=number)),
        dataset_id=dataset().id,
        config=TrainingConfig(base_model=BASE_MODELS[number % 2]),
        name=f"job {number}",
        labels={"team": f"team-{number % 2}", "run": f"run-{number % 100}"},
        status=status,
        progress=100,
        message="Training completed successfully",
        attempt=1,
        submission_id=f"sienn-{uuid.UUID(int=number)}-1",
        **job_facts.of_flat(facts()),
        created_at=MOMENT,
        updated_at=started_at,
        started_at=started_at,
        ended_at=started_at + timedelta(minutes=12),
    )


def facts() -> dict[str, Any]:
    """What a run of ten epochs leaves."""
    losses = [round(2.5 - epoch * 0.17, 4) for epoch in range(11)]
    return {
        "phase": "completed",
        "current_epoch": 10,
        "total_epochs": 10,
        "current_step": 2500,
        "total_steps": 2500,
        "current_loss": losses[-1],
        "train_loss": losses[-1],
        "eval_loss": losses[-1],
        "learning_rate": 1.2e-7,
        "tokens_per_s": 812.4,
        "time_left_s": 0.0,
        "num_tokens": 1_234_567,
        "train_seconds": 1519.7,
        "num_train_rows": 900,
        "num_eval_rows": 100,
        "num_workers": 1,
        "adapter_sha256": "f" * 64,
        "adapter_size_bytes": 8_676_008,
        "loss_history": [
            {"epoch": epoch, "train_loss": before, "eval_loss": after}
            for epoch, (before, after) in enumerate(pairwise(losses))
        ],
    }


def facts_bytes() -> int:
    return len(json.dumps(job_facts.to_flat(job(0))))


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
