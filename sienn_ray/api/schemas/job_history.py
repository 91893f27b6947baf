"""Bodies about what a job went through: events and curves."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sienn_ray.api.schemas.common import JOB_ID, ResponseBody, Timestamp


class JobEventBody(ResponseBody):
    """An event of a job."""

    seq: int = Field(description="Rises over all jobs, with gaps.", examples=[17])
    kind: str = Field(description="What it is, for programs.", examples=["started"])
    message: str = Field(description="What it is, for people.", examples=["Starting the training program"])
    data: dict[str, Any] = Field(description="Further facts.", examples=[{"attempt": 1}])
    created_at: Timestamp


class JobEventList(ResponseBody):
    """A job's events, the oldest first."""

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    events: list[JobEventBody] = Field(
        description="Events after `after`.",
        examples=[
            [
                {
                    "seq": 17,
                    "kind": "started",
                    "message": "Starting the training program",
                    "data": {"attempt": 1},
                    "created_at": "2025-11-12T10:30:04.000Z",
                }
            ]
        ],
    )
    next_after: int = Field(description="`after` of the next request, which gives what comes then.", examples=[17])


class MetricPointBody(ResponseBody):
    """One point of a job's curves; what wasn't measured at this step is null."""

    step: int = Field(description="Optimizer steps that were done.", examples=[120])
    epoch: int = Field(description="1-based.", examples=[2])
    loss: float | None = Field(
        description="Training loss, per token, or per pair or answer where preferences are learned.", examples=[0.523]
    )
    eval_loss: float | None = Field(description="Loss on the rows held out, per token.", examples=[None])
    learning_rate: float | None = Field(description="Learning rate of this step.", examples=[0.00017])
    tokens_per_s: float | None = Field(description="Tokens trained on in a second, over all workers.", examples=[812.4])
    rewards_chosen: float | None = Field(
        description="Mean reward of this step's answers that were chosen, or labelled desirable; preferences only.",
        examples=[0.021],
    )
    rewards_rejected: float | None = Field(
        description="Mean reward of the answers in this step that were rejected, or labelled undesirable.",
        examples=[-0.014],
    )
    rewards_margins: float | None = Field(
        description="Mean reward of the answers in this step that were chosen minus that of those rejected.",
        examples=[0.035],
    )
    rewards_accuracies: float | None = Field(
        description="Share of pairs in this step whose chosen answer has the higher reward.", examples=[0.75]
    )
    eval_rewards_chosen: float | None = Field(
        description="Mean reward of the answers held out that were chosen, or labelled desirable; preferences only.",
        examples=[None],
    )
    eval_rewards_rejected: float | None = Field(
        description="Mean reward of the answers in the rows held out that were rejected, or labelled undesirable.",
        examples=[None],
    )
    eval_rewards_margins: float | None = Field(
        description="Mean reward of the answers in the rows held out that were chosen minus that of those rejected.",
        examples=[None],
    )
    eval_rewards_accuracies: float | None = Field(
        description="Share of pairs held out whose chosen answer has the higher reward.", examples=[None]
    )
    created_at: Timestamp


class JobCurves(ResponseBody):
    """A job's curves."""

    job_id: str = Field(description="The job's UUID.", examples=[JOB_ID])
    points: list[MetricPointBody] = Field(
        description="In order of steps.",
        examples=[
            [
                {
                    "step": 120,
                    "epoch": 2,
                    "loss": 0.523,
                    "eval_loss": None,
                    "learning_rate": 0.00017,
                    "tokens_per_s": 812.4,
                    "rewards_chosen": 0.021,
                    "rewards_rejected": -0.014,
                    "rewards_margins": 0.035,
                    "rewards_accuracies": 0.75,
                    "eval_rewards_chosen": None,
                    "eval_rewards_rejected": None,
                    "eval_rewards_margins": None,
                    "eval_rewards_accuracies": None,
                    "created_at": "2025-11-12T10:35:00.000Z",
                }
            ]
        ],
    )
