"""Users of a service that is failing under them: each a thread that works on, and keeps what was acknowledged."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

LONGEST_S = 120.0
PATIENCE_S = 300.0
MAX_NEW_TOKENS = 10  # the least that may be asked for
# Jobs beyond these would only have to be waited for in the end.
MAX_WAITING = 1
ENDED = {"completed", "failed", "cancelled"}


@dataclass
class Acknowledged:
    """What the service has said that it has, and how requests went; for many threads.

    Args:
        datasets: Ids of uploaded ones.
        deleted: Ids of those that were deleted again.
        jobs: Job ids by the key that they were asked for with.
        completed: Ids of jobs that were seen completed.
        requests: Requests by how they went.
        faults: Sentences on what must not happen.
    """

    datasets: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    jobs: dict[str, str] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)
    requests: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, outcome: str) -> None:
        with self.lock:
            self.requests[outcome] += 1

    def note_fault(self, words: str) -> None:
        with self.lock:
            self.faults.append(words)


class User:
    """Base of users: sends requests, and counts how they went.

    Args:
        url: The service's.
        base_model: To fine-tune.
        seen: What all of them keep.
        seed: Of the choices.
        pause_s: Between two pieces of work.
    """

    def __init__(self, url: str, base_model: str, seen: Acknowledged, seed: int, pause_s: float) -> None:
        self.url = url
        self.base_model = base_model
        self.seen = seen
        self.chance = random.Random(seed)
        self._pause_s = pause_s

    def run(self, is_over: threading.Event) -> None:
        while not is_over.wait(self._pause_s * self.chance.uniform(0.5, 1.5)):
            self.work(is_over)

    def work(self, is_over: threading.Event) -> None:
        raise NotImplementedError

    def send(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """Send a request once; None if it went unanswered or was asked to come back."""
        try:
            response = httpx2.request(method, self.url + path, timeout=LONGEST_S, **options)
        except httpx2.HTTPError as error:
            self.seen.note(f"unanswered ({type(error).__name__})")
            return None
        if response.status_code == 503:
            self.seen.note("asked to come back (503)")
            return None
        if response.status_code >= 500:
            self.seen.note("answered with a 500")
            self.seen.note_fault(f"{method} {path}: {response.status_code} {response.text[:300]}")
            return None
        self.seen.note("answered")
        return response

    def insist(self, is_over: threading.Event, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """Send a request until it is answered, as somebody who wants it done; None if all was over before."""
        deadline = time.monotonic() + PATIENCE_S
        while (response := self.send(method, path, **options)) is None:
            if time.monotonic() > deadline:
                self.seen.note_fault(f"{method} {path} wasn't answered within {PATIENCE_S:.0f} s")
                return None
            if is_over.wait(1.0):
                return None
        return response


class Uploader(User):
    """Uploads datasets, and deletes some of them again."""

    def work(self, is_over: threading.Event) -> None:
        rows = [{"instruction": f"What is {uuid.uuid4()}?", "response": "An id, as it seems."} for _ in range(16)]
        file = ("rows.jsonl", "\n".join(json.dumps(row) for row in rows).encode())
        response = self.send("POST", "/api/upload-dataset", files={"file": file})
        if response is None:
            return
        if response.is_error:
            self.seen.note_fault(f"upload: {response.status_code} {response.text[:300]}")
            return
        dataset_id = response.json()["dataset_id"]
        if self.chance.random() < 0.25:
            self._delete(is_over, dataset_id)
        else:
            with self.seen.lock:
                self.seen.datasets.add(dataset_id)

    def _delete(self, is_over: threading.Event, dataset_id: str) -> None:
        # A repeat of one that had worked finds nothing any more.
        response = self.insist(is_over, "DELETE", f"/api/datasets/{dataset_id}")
        if response is not None and (response.is_success or response.status_code == 404):
            with self.seen.lock:
                self.seen.deleted.add(dataset_id)


class Trainer(User):
    """Starts fine-tunes with a key each while few wait, asks for some of them twice, and waits for none."""

    def work(self, is_over: threading.Event) -> None:
        with self.seen.lock:
            datasets = sorted(self.seen.datasets)
        if not datasets or self._num_waiting() >= MAX_WAITING:
            return
        key = uuid.uuid4().hex
        body = {
            "dataset_id": self.chance.choice(datasets),
            "model_name": self.base_model,
            "num_epochs": self.chance.choice([1, 2, 4]),
            "batch_size": 2,
            "max_length": 128,
        }
        for _ in range(self.chance.choice([1, 2])):
            response = self.insist(
                is_over, "POST", "/api/start-finetuning", json=body, headers={"Idempotency-Key": key}
            )
            if response is None:
                return
            if response.is_error:
                self.seen.note_fault(f"start: {response.status_code} {response.text[:300]}")
                return
            self._keep(key, response.json()["job_id"])

    def _num_waiting(self) -> int:
        """Jobs that haven't begun yet; more than enough where nobody can say."""
        response = self.send("GET", "/api/jobs", params={"status": "pending"})
        return MAX_WAITING if response is None or response.is_error else int(response.json()["count"])

    def _keep(self, key: str, job_id: str) -> None:
        with self.seen.lock:
            before = self.seen.jobs.setdefault(key, job_id)
        if before != job_id:
            self.seen.note_fault(f"one key made two jobs: {before} and {job_id}")


class Poller(User):
    """Looks at jobs, of which none may vanish nor leave its end."""

    def work(self, is_over: threading.Event) -> None:
        with self.seen.lock:
            jobs = sorted(self.seen.jobs.values())
        if not jobs:
            return
        job_id = self.chance.choice(jobs)
        response = self.send("GET", f"/api/training-status/{job_id}")
        if response is None:
            return
        if response.is_error:
            self.seen.note_fault(f"job {job_id} was acknowledged: {response.status_code} {response.text[:300]}")
            return
        status = response.json()["status"]
        with self.seen.lock:
            was_completed = job_id in self.seen.completed
            if status == "completed":
                self.seen.completed.add(job_id)
        if was_completed and status != "completed":
            self.seen.note_fault(f"job {job_id} was completed, and is {status}")


class Asker(User):
    """Asks adapters, for whole answers and for streams."""

    def work(self, is_over: threading.Event) -> None:
        with self.seen.lock:
            completed = sorted(self.seen.completed)
        if not completed:
            return
        job_id = self.chance.choice(completed)
        if self.chance.random() < 0.5:
            body = {"job_id": job_id, "prompt": "What is it?", "max_new_tokens": MAX_NEW_TOKENS}
            response = self.send("POST", "/api/test-model", json=body)
            if response is not None and response.is_error:
                self.seen.note_fault(f"test-model {job_id}: {response.status_code} {response.text[:300]}")
            return
        self._stream(job_id)

    def _stream(self, job_id: str) -> None:
        body = {
            "model": job_id,
            "messages": [{"role": "user", "content": "What is it?"}],
            "max_tokens": MAX_NEW_TOKENS,
            "stream": True,
        }
        lines: list[str] = []
        try:
            with httpx2.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=LONGEST_S) as response:
                if response.is_success:
                    lines = [line for line in response.iter_lines() if line]
        except httpx2.HTTPError as error:
            self.seen.note(f"unanswered ({type(error).__name__})")
            return
        if response.status_code == 503:
            self.seen.note("asked to come back (503)")
        elif response.is_error:
            self.seen.note_fault(f"chat {job_id}: {response.status_code}")
        elif lines[-1:] == ["data: [DONE]"]:
            self.seen.note("answered")
        else:
            # It had begun, so all that can be said is an error in the stream.
            self.seen.note("stream ended with an error")
            if not any('"error"' in line for line in lines):
                self.seen.note_fault(f"a stream ended without its end and without an error: {lines[-1:]}")


def users(url: str, base_model: str, seen: Acknowledged, seed: int) -> list[User]:
    """One of each kind, and a second one who polls and asks."""
    kinds: list[tuple[type[User], float]] = [
        (Uploader, 4.0), (Trainer, 12.0), (Poller, 0.5), (Poller, 0.5), (Asker, 1.5), (Asker, 1.5),
    ]  # fmt: skip
    return [kind(url, base_model, seen, seed * 100 + number, pause_s) for number, (kind, pause_s) in enumerate(kinds)]
