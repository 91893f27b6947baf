"""Kill the tracker, the training program and a Ray job: nothing is lost, and every job ends."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from tests.integration.programs import programs_of
from tests.integration.service import MANY_ROWS, ROWS, Service, wait_for


def test_a_killed_tracker_comes_back_and_the_job_completes(service: Service) -> None:
    dataset_id = service.upload(ROWS)
    job_id = service.start(dataset_id, num_epochs=5, batch_size=1, validation_split=0)
    service.wait_until(job_id, lambda job: job["meta"].get("phase") == "training", "training")
    before = {job["job_id"] for job in service.get("/api/jobs")["jobs"]}
    (tracker,) = service.processes("ray::JobTracker")
    tracker.kill()
    done = service.wait_for_end(job_id)
    assert done["meta"]["attempt"] == 1
    # Without validation rows nothing is evaluated.
    history = [(record["epoch"], record["eval_loss"]) for record in done["meta"]["loss_history"]]
    assert history == [(epoch, None) for epoch in (1, 2, 3, 4, 5)]
    assert {job["job_id"] for job in service.get("/api/jobs")["jobs"]} == before
    assert dataset_id in [dataset["id"] for dataset in service.get("/api/datasets")["datasets"]]
    (successor,) = service.processes("ray::JobTracker")
    assert successor.pid != tracker.pid


def test_a_job_stopped_by_hand_ends_failed_and_says_so(service: Service) -> None:
    job_id = service.start(service.upload(MANY_ROWS), num_epochs=10, batch_size=1)
    job = service.wait_until(job_id, lambda job: job["meta"].get("phase") == "training", "training")
    service.on_ray(
        "from ray.job_submission import JobSubmissionClient\n"
        f"JobSubmissionClient(ray.get_runtime_context().gcs_address).stop_job({job['meta']['ray_submission_id']!r})"
    )
    ended = service.wait_for_failure(job_id)
    assert ended["meta"]["failure_reason"] == "stopped"
    wait_for(lambda: not service.processes("ray::RayTrainWorker"), "the end of its workers", 60.0)


def test_a_training_program_that_keeps_dying_ends_failed(service: Service) -> None:
    job_id = service.start(service.upload(MANY_ROWS), num_epochs=10, batch_size=1)

    def is_at(attempt: int) -> Callable[[Any], bool]:
        return lambda job: bool(job["meta"]["attempt"] == attempt)

    max_attempts = 3
    for attempt in range(1, max_attempts + 1):
        service.wait_until(job_id, is_at(attempt), f"attempt {attempt}")
        program = wait_for(lambda: programs_of(service, job_id), "the training program", 60.0)
        for process in program:
            process.kill()
    ended = service.wait_for_failure(job_id)
    assert ended["meta"]["failure_reason"] == "interrupted"
    assert "SIENN_MAX_ATTEMPTS" in ended["message"]


# A detached group stays when the actor that made it dies, as every group does while the actor's job goes on.
RESERVE = """
from ray.util.placement_group import placement_group
group = placement_group([{"CPU": 0.001}], lifetime="detached", name=NAME)
assert group.wait(60)
"""
STATES = """
from ray.util.placement_group import placement_group_table
print({facts["name"]: facts["state"] for facts in placement_group_table().values()})
"""


def test_what_a_lost_run_reserved_is_given_back_and_nothing_of_others(service: Service) -> None:
    service.on_ray_anew(f"NAME = 'of another job'{RESERVE}")
    free = "from sienn_ray.training.resources import free_placement_groups\nfree_placement_groups()\n"
    states = service.on_ray(f"NAME = 'own'{RESERVE}{free}{STATES}")
    service.on_ray(
        "from ray.util.placement_group import get_placement_group, remove_placement_group\n"
        "remove_placement_group(get_placement_group('of another job'))"
    )
    found = ast.literal_eval(states.strip().splitlines()[-1])
    assert (found["of another job"], found["own"]) == ("CREATED", "REMOVED")
