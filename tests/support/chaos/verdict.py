"""Comparison of what was acknowledged with what the service has once it is left alone."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import httpx2

from tests.support.chaos.users import ENDED, MAX_NEW_TOKENS, Acknowledged

LOOK_S = 1.0
REQUEST_S = 120.0


def faults_found(url: str, seen: Acknowledged, longest_s: float) -> list[str]:
    """Wait until all jobs have ended; sentences on what is lost, twice, stuck or mute.

    Args:
        url: The service's.
        seen: What it had acknowledged.
        longest_s: How long jobs may take to end now that nothing happens any more.
    """
    jobs = _wait_for_ends(url, seen, longest_s)
    return [*seen.faults, *_dataset_faults(url, seen), *_job_faults(jobs, seen), *_adapter_faults(url, jobs)]


def _wait_for_ends(url: str, seen: Acknowledged, longest_s: float) -> list[dict[str, Any]]:
    deadline = time.monotonic() + longest_s
    while True:
        jobs = _all(url, "/api/jobs", "jobs")
        if {job["status"] for job in jobs} <= ENDED or time.monotonic() > deadline:
            return jobs
        time.sleep(LOOK_S)


def _all(url: str, path: str, name: str) -> list[dict[str, Any]]:
    """All entries of a list, page by page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
        page = httpx2.get(url + path, params=query, timeout=REQUEST_S).raise_for_status().json()
        found += page[name]
        cursor = page.get("next_cursor")
        if cursor is None:
            return found


def _dataset_faults(url: str, seen: Acknowledged) -> list[str]:
    counts = Counter(dataset["id"] for dataset in _all(url, "/api/datasets", "datasets"))
    lost = [f"dataset {each} was acknowledged and is lost" for each in sorted(seen.datasets - set(counts))]
    kept = [f"dataset {each} was deleted and is there" for each in sorted(seen.deleted & set(counts))]
    twice = [f"dataset {each} is listed {count} times" for each, count in counts.items() if count > 1]
    unreadable = []
    for dataset_id in sorted(seen.datasets & set(counts)):
        rows = httpx2.get(f"{url}/api/datasets/{dataset_id}/rows", params={"limit": "1"}, timeout=REQUEST_S)
        if rows.is_error:
            unreadable.append(f"dataset {dataset_id} can't be read: {rows.status_code} {rows.text[:200]}")
    return [*lost, *kept, *twice, *unreadable]


def _job_faults(jobs: list[dict[str, Any]], seen: Acknowledged) -> list[str]:
    counts = Counter(job["job_id"] for job in jobs)
    acknowledged = set(seen.jobs.values())
    lost = [f"job {each} was acknowledged and is lost" for each in sorted(acknowledged - set(counts))]
    twice = [f"job {each} is listed {count} times" for each, count in counts.items() if count > 1]
    stuck = [f"job {job['job_id']} is still {job['status']}" for job in jobs if job["status"] not in ENDED]
    failed = [f"job {job['job_id']} failed: {job['message']}" for job in jobs if job["status"] == "failed"]
    return [*lost, *twice, *stuck, *failed]


def _adapter_faults(url: str, jobs: list[dict[str, Any]]) -> list[str]:
    found = []
    for job in jobs:
        if job["status"] != "completed":
            continue
        body = {"job_id": job["job_id"], "prompt": "What is it?", "max_new_tokens": MAX_NEW_TOKENS, "do_sample": False}
        answer = httpx2.post(f"{url}/api/test-model", json=body, timeout=REQUEST_S)
        if answer.is_error:
            found.append(f"the adapter of job {job['job_id']} doesn't answer: {answer.status_code} {answer.text[:200]}")
    return found
