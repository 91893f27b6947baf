"""Sets of names that are said in two places are the same in both."""

from __future__ import annotations

from typing import get_args, get_type_hints

from sienn_ray.api.schemas import openai_answers
from sienn_ray.api.schemas.messages import MessageBody
from sienn_ray.api.schemas.metrics import JobCounts
from sienn_ray.cli import training
from sienn_ray.datasets.schema import Role
from sienn_ray.inference import engine
from sienn_ray.jobs.schema import JobStatus


def test_command_line_knows_when_a_job_is_not_at_rest() -> None:
    # The command line starts twice as fast without the module that has the statuses.
    assert set(training._GOES_ON) == {status for status in JobStatus if not status.is_at_rest}


def test_jobs_are_counted_in_every_status() -> None:
    assert list(JobCounts.model_fields) == list(JobStatus)


def test_roles_of_a_request_are_those_of_datasets() -> None:
    roles = get_args(get_type_hints(engine.ChatMessage)["role"])
    assert set(roles) == set(Role)
    assert set(get_args(get_type_hints(MessageBody)["role"])) == {*Role, "developer"}


def test_clients_hear_no_reason_that_engines_have_not() -> None:
    assert set(get_args(openai_answers.FinishReason)) < set(get_args(engine.FinishReason))
