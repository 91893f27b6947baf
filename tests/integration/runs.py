"""Runs that several tests look at: one that is watched, and some that are asked for all at once."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from tests.integration.service import JOB_TIMEOUT_S, PROMPT, ROWS, Service, wait_for

# Not a multiple of the number of workers: all of them are evaluated on all the same.
VALIDATION_ROWS = "\n".join(ROWS.splitlines()[:5])
# Two epochs of 90 rows are four parts, of which a worker tokenizes three itself. The last one comes through Ray Data.
NUM_PIPED_ROWS = 100
LEARNING_RATE = 1e-3
# The run that others are compared with to which something happens.
UNDISTURBED: dict[str, Any] = {
    "num_epochs": 2, "batch_size": 2, "learning_rate": 0.001, "lora_dropout": 0.1, "seed": 7,
}  # fmt: skip


@dataclass(frozen=True)
class WatchedRun:
    """A run from its start to its end, as somebody sees it who asks all the time."""

    job_id: str
    seen: list[Any]


def watch_run(service: Service) -> WatchedRun:
    """Train on a few rows, and look until that has ended."""
    job_id = service.start(service.upload(ROWS), num_epochs=3, learning_rate=LEARNING_RATE, batch_size=2)
    seen: list[Any] = []

    def look(job: Any) -> bool:
        seen.append(job)
        return bool(job["status"] == "completed")

    service.wait_until(job_id, look, "completion")
    return WatchedRun(job_id, seen)


@dataclass(frozen=True)
class QueuedRuns:
    """Jobs by what is special about them, in the order in which they were asked for.

    Args:
        ids: Their ids.
        third: How the third one stood when it had just been asked for.
    """

    ids: dict[str, str]
    third: Any


def queue_runs(service: Service, completed_job: str) -> QueuedRuns:
    """Ask for all of them, and wait until they have ended."""
    service.ask(completed_job, PROMPT)  # so that an engine runs
    runs = _runs(service)
    ids: dict[str, str] = {}
    third = None
    for name, options in runs.items():
        ids[name] = service.start(**options)
        if len(ids) == 3:
            third = service.status(ids[name])
    for name, job_id in ids.items():
        wait_for(functools.partial(has_ended, service, job_id), f"end of the run with {name}", JOB_TIMEOUT_S)
    return QueuedRuns(ids, third)


def has_ended(service: Service, job_id: str) -> bool:
    return service.status(job_id)["status"] in {"completed", "failed"}


def _runs(service: Service) -> dict[str, dict[str, Any]]:
    rows = service.upload(ROWS)
    without_room = service.upload(json.dumps({"instruction": "word " * 400, "response": "answer"}))
    piped_rows = service.upload(
        "\n".join(
            json.dumps({"instruction": f"Number {number}?", "response": f"It is {number}."})
            for number in range(NUM_PIPED_ROWS)
        )
    )
    piped: dict[str, Any] = {
        "dataset_id": piped_rows,
        "num_epochs": 2,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": LEARNING_RATE,
        "lora_dropout": 0.0,
        "precision": "float32",
    }
    return {
        "rows without room": {"dataset_id": without_room},
        "validation rows without room": {"dataset_id": rows, "validation_dataset_id": without_room},
        "unknown target modules": {"dataset_id": rows, "target_modules": ["q_proj", "self_attn.down_proj"]},
        "one worker": {**piped, "num_workers": 1},
        "two workers": {**piped, "num_workers": 2},
        "hyperparameters": {
            "dataset_id": rows,
            "validation_dataset_id": service.upload(VALIDATION_ROWS),
            "learning_rate": LEARNING_RATE,
            "num_epochs": 2,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "lr_scheduler": "linear",
            "warmup_ratio": 0.1,
            "weight_decay": 0.01,
            "lora_r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0,
            "target_modules": ["q_proj", "v_proj"],
            "num_workers": 2,
            "name": "All of them",
            "labels": {"team": "ships", "stage": "test"},
        },
    }
