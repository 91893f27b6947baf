"""Kill the tracker, the training worker and the whole service: nothing is lost, and every job ends."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from tests.integration.service import ROWS, Service, running_service, wait_for

MANY_ROWS = "\n".join([ROWS] * 4)


def is_past_first_checkpoint(job: Any) -> bool:
    """In an epoch after the first, with an evaluation behind it and steps of its own done."""
    meta = job["meta"]
    return bool(
        meta.get("phase") == "training"
        and meta["current_epoch"] >= 2
        and meta["current_step"] % (meta["total_steps"] // meta["total_epochs"]) > 2
    )


def test_a_killed_tracker_comes_back_and_the_job_completes(service: Service) -> None:
    dataset_id = service.upload(ROWS)
    job_id = service.start(dataset_id, num_epochs=5, batch_size=1)
    service.wait_until(job_id, lambda job: job["meta"].get("phase") == "training", "training")
    before = {job["job_id"] for job in service.get("/api/jobs")["jobs"]}
    (tracker,) = service.processes("ray::JobTracker")
    tracker.kill()
    done = service.wait_for_end(job_id)
    assert done["meta"]["attempt"] == 1
    assert {job["job_id"] for job in service.get("/api/jobs")["jobs"]} == before
    assert dataset_id in [dataset["id"] for dataset in service.get("/api/datasets")["datasets"]]
    (successor,) = service.processes("ray::JobTracker")
    assert successor.pid != tracker.pid


def test_a_killed_worker_resumes_from_the_last_checkpoint(service: Service) -> None:
    job_id = service.start(service.upload(MANY_ROWS), num_epochs=4, batch_size=1)
    service.wait_until(job_id, is_past_first_checkpoint, "the second epoch")
    (worker,) = service.processes("ray::RayTrainWorker")
    worker.kill()
    done = service.wait_for_end(job_id)
    history = done["meta"]["loss_history"]
    # The epochs before the kill are there once: they weren't trained again.
    assert [record["epoch"] for record in history] == [0, 1, 2, 3, 4]
    assert done["meta"]["attempt"] == 1
    assert "Resuming after epoch" in service.driver_logs_of(job_id)


def test_a_restarted_service_has_everything_and_resumes_what_was_interrupted(tmp_path: Path, hub_home: Path) -> None:
    home = tmp_path / "home"
    with running_service(home, hub_home) as first:
        dataset_id = first.upload(MANY_ROWS)
        finished = first.start(dataset_id, num_epochs=1, batch_size=16)
        first.wait_for_end(finished)
        answer = first.ask(finished, "What is the code word of room 1?")["generated_text"]
        interrupted = first.start(dataset_id, num_epochs=4, batch_size=1)
        waiting = first.start(dataset_id, num_epochs=1, batch_size=16)
        first.wait_until(interrupted, is_past_first_checkpoint, "the second epoch")
    with running_service(home, hub_home) as second:
        assert [dataset["id"] for dataset in second.get("/api/datasets")["datasets"]] == [dataset_id]
        listed = [job["job_id"] for job in second.get("/api/jobs")["jobs"]]
        assert listed == [waiting, interrupted, finished]
        assert second.ask(finished, "What is the code word of room 1?")["generated_text"] == answer
        resumed = second.wait_for_end(interrupted)
        assert resumed["meta"]["attempt"] == 2
        assert [record["epoch"] for record in resumed["meta"]["loss_history"]] == [0, 1, 2, 3, 4]
        assert "Resuming after epoch" in second.driver_logs_of(interrupted)
        second.wait_for_end(waiting)
        assert second.ask(interrupted, "What is the code word of room 1?")["model_path"].endswith(interrupted)


def test_a_job_stopped_by_hand_ends_failed_and_says_so(service: Service) -> None:
    job_id = service.start(service.upload(MANY_ROWS), num_epochs=10, batch_size=1)
    job = service.wait_until(job_id, lambda job: job["meta"].get("phase") == "training", "training")
    service.on_ray(
        "from ray.job_submission import JobSubmissionClient\n"
        f"JobSubmissionClient(ray.get_runtime_context().gcs_address).stop_job({job['meta']['ray_submission_id']!r})"
    )
    ended = service.wait_until(job_id, lambda job: job["status"] == "failed", "the end of a stopped job")
    assert ended["meta"]["failure_reason"] == "stopped"
    wait_for(lambda: not service.processes("ray::RayTrainWorker"), "the end of its workers", 60.0)


def test_a_training_program_that_keeps_dying_ends_failed(service: Service) -> None:
    job_id = service.start(service.upload(MANY_ROWS), num_epochs=10, batch_size=1)
    max_attempts = 3
    for attempt in range(1, max_attempts + 1):
        service.wait_until(job_id, lambda job, attempt=attempt: job["meta"]["attempt"] == attempt, f"attempt {attempt}")
        program = wait_for(lambda: programs_of(service, job_id), "the training program", 60.0)
        for process in program:
            process.kill()
    ended = service.wait_until(job_id, lambda job: job["status"] == "failed", "giving up")
    assert ended["meta"]["failure_reason"] == "interrupted"
    assert "SIENN_MAX_ATTEMPTS" in ended["message"]


def programs_of(service: Service, job_id: str) -> list[Any]:
    from psutil import Error

    found = []
    for process in service.processes(""):
        try:
            words = process.cmdline()
        except Error:
            continue
        if job_id in words and "python" in words[0]:
            found.append(process)
    return found


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
    service.on_ray(f"NAME = 'of another job'{RESERVE}")
    free = "from sienn_ray.training.resources import free_placement_groups\nfree_placement_groups()\n"
    states = service.on_ray(f"NAME = 'own'{RESERVE}{free}{STATES}")
    service.on_ray(
        "from ray.util.placement_group import get_placement_group, remove_placement_group\n"
        "remove_placement_group(get_placement_group('of another job'))"
    )
    found = ast.literal_eval(states.strip().splitlines()[-1])
    assert (found["of another job"], found["own"]) == ("CREATED", "REMOVED")
