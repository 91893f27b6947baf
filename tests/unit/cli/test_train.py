"""`sienn train` takes every hyperparameter, and follows the run."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from sienn_ray.cli import training
from sienn_ray.cli.client import call_once
from sienn_ray.errors import CapacityError, FailureReason
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.hyperparameters import config_of
from tests.support.fakes_api import dataset_record, job_record
from tests.support.hyperparameter_values import as_options, other_values
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import done, refused

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # comes as a package, so no hub is asked


@pytest.mark.parametrize(
    ("meta", "shown"),
    [
        ({"current_epoch": 0, "total_epochs": 3, "current_loss": None}, ""),
        (
            {
                "current_epoch": 2,
                "total_epochs": 3,
                "current_loss": 0.5234,
                "eval_loss": 1.0,
                "tokens_per_s": 80.4,
                "time_left_s": 65.0,
            },
            "epoch 2/3  loss 0.523  eval loss 1.000  80 tokens/s  1:05 left",
        ),
        (
            {
                "current_epoch": 1,
                "total_epochs": 1,
                "current_loss": 0.69,
                "rewards_margins": 0.0123,
                "rewards_accuracies": 0.5,
            },
            "epoch 1/1  loss 0.690  margin 0.012  chosen over rejected 50%",
        ),
        (
            {
                "current_epoch": 1,
                "total_epochs": 1,
                "rewards_margins": 0.1,
                "rewards_accuracies": 1.0,
                "eval_rewards_margins": 0.05,
                "eval_rewards_accuracies": 0.75,
            },
            "epoch 1/1  margin 0.050  chosen over rejected 75%",
        ),
    ],
)
def test_facts_of_a_running_job(meta: dict[str, Any], shown: str) -> None:
    assert training.facts(meta) == shown


@pytest.mark.usefixtures("service")
class TestTrain:
    @pytest.fixture(autouse=True)
    def datasets(self, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(), dataset_record(id="dataset-2"))

    def test_defaults_are_the_service_s_own(self, tracker: InProcessTracker) -> None:
        shown = done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait")
        assert shown == f"job_id: {tracker.last_job.id}\n"
        assert tracker.last_job.config == TrainingConfig(base_model=BASE_MODEL)

    def test_every_hyperparameter_reaches_the_job(self, tracker: InProcessTracker) -> None:
        values = other_values()
        done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", *as_options(values))
        assert tracker.last_job.config == config_of(BASE_MODEL, values)

    def test_every_other_option_reaches_the_job(self, tracker: InProcessTracker) -> None:
        options = "--validation-dataset-id dataset-2 --label team=a=b --label env= --no-gradient-checkpointing"
        done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", *options.split(), "--name", "My job")
        job = tracker.last_job
        assert (job.name, job.labels) == ("My job", {"team": "a=b", "env": ""})
        assert job.validation_dataset_id == "dataset-2"
        assert (job.config.validation_split, job.config.gradient_checkpointing) == (0.0, False)

    def test_validation_split(self, tracker: InProcessTracker) -> None:
        words = ("--validation-split", "0.25", "--target-modules", "all-linear")
        done("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", *words)
        assert tracker.last_job.config.validation_split == 0.25

    def test_same_key_makes_one_job(self, tracker: InProcessTracker) -> None:
        words = ("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait", "--idempotency-key", "k")
        assert done(*words) == done(*words)
        assert tracker.num_records == 3

    def test_each_command_has_a_key_of_its_own(self, tracker: InProcessTracker) -> None:
        words = ("train", "dataset-1", "--base-model", BASE_MODEL, "--no-wait")
        keys = []
        for _ in range(2):
            done(*words)
            keys.append(tracker.last_job.idempotency_key)
        assert None not in keys
        assert len(set(keys)) == 2

    def test_command_whose_answer_is_lost_makes_one_job(self, tracker: InProcessTracker) -> None:
        send = tracker.send

        async def send_and_lose(method: str, *args: Any) -> Any:
            answer = await send(method, *args)
            if method != "add_job":
                return answer
            tracker.send = send  # type: ignore[method-assign]
            raise CapacityError("the job tracker is restarting")

        tracker.send = send_and_lose  # type: ignore[method-assign]
        body = {"dataset_id": "dataset-1", "model_name": BASE_MODEL}
        job_id = call_once("POST", "/api/start-finetuning", "key", pauses_s=(0.0,), json=body)["job_id"]
        assert job_id == tracker.last_job.id
        assert tracker.num_records == 3

    def test_repeats_have_an_end(self, tracker: InProcessTracker, capsys: pytest.CaptureFixture[str]) -> None:
        tracker.fail_with(CapacityError("the job tracker is restarting"))
        with pytest.raises(typer.Exit):
            call_once("POST", "/api/start-finetuning", "key", pauses_s=(0.0, 0.0), json={"dataset_id": "dataset-1"})
        assert "the job tracker is restarting" in capsys.readouterr().err
        assert tracker.num_failed == 3

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["nothing"], "Dataset nothing not found"),
            (["../x"], "Dataset ../x not found"),
            (["dataset-1", "--lora-r", "0"], "--lora-r: has to be greater than or equal to 1 (got 0)"),
            (["dataset-1", "--label", "team"], "label 'team' is not of the form KEY=VALUE"),
            (["dataset-1", "--lr-scheduler", "step"], "--lr-scheduler: has to be 'cosine', 'linear' or 'constant'"),
            (["dataset-1", "--target-modules", ""], "--target-modules"),
            (["dataset-1", "--num-workers", "1", "--min-workers", "2"], "--min-workers=2 is more than --num-workers=1"),
        ],
    )
    def test_errors_are_one_sentence(self, tracker: InProcessTracker, words: list[str], message: str) -> None:
        assert message in refused("train", *words, "--base-model", BASE_MODEL, "--no-wait")
        assert tracker.num_records == 2

    def test_help_has_limits_and_defaults(self) -> None:
        shown = " ".join(done("train", "--help").replace("│", " ").split())
        assert "Rank of the adapter's matrices. (1 to 256; default 16)" in shown
        assert "Evaluations without a better loss after which the run ends; by default never." in shown


@pytest.mark.usefixtures("service")
class TestWatch:
    def test_completed(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.COMPLETED, progress=100, message="Training completed successfully"))
        assert "Training completed successfully" in done("watch", "job-1")

    def test_failed(self, tracker: InProcessTracker) -> None:
        reason = FailureReason.OUT_OF_MEMORY
        tracker.put(job_record(status=JobStatus.FAILED, failure_reason=reason, message="lower batch_size"))
        assert refused("watch", "job-1") == "the job failed (out_of_memory): lower batch_size"

    def test_paused(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.PAUSED))
        assert refused("watch", "job-1") == "the job is paused; `sienn resume` has it go on"

    def test_cancelled(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.CANCELLED))
        assert refused("watch", "job-1") == "the job was cancelled; `sienn retry` puts it back into the queue"
