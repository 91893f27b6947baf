from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sienn_ray import train
from sienn_ray.errors import InvalidDatasetError, InvalidInputError
from sienn_ray.jobs.naming import MAX_LABELS
from sienn_ray.jobs.schema import JobRecord, JobStatus, utc_now
from sienn_ray.settings import Settings
from sienn_ray.train import _given, _labels_of, _parser
from sienn_ray.training.config import TrainingConfig
from tests.support.fakes_jobs import dataset_record


def job_of(status: JobStatus, attempt: int) -> JobRecord:
    return JobRecord(
        id="job",
        dataset_id="dataset",
        config=TrainingConfig(base_model="owner/model"),
        status=status,
        attempt=attempt,
        created_at=utc_now(),
        updated_at=utc_now(),
    )


@pytest.mark.parametrize(
    ("status", "attempt", "expected"),
    [
        (JobStatus.RUNNING, 2, True),
        (JobStatus.PENDING, 1, True),  # Ray's job API didn't confirm the start that led here
        (JobStatus.RUNNING, 1, False),
        (JobStatus.RUNNING, 3, False),
        (JobStatus.PENDING, 2, False),  # given up, or retried by the user
        (JobStatus.PENDING, 3, False),
        (JobStatus.PAUSED, 1, False),
        (JobStatus.PAUSED, 2, False),
        (JobStatus.CANCELLED, 1, False),
        (JobStatus.CANCELLED, 2, False),
        (JobStatus.FAILED, 2, False),
        (JobStatus.COMPLETED, 2, False),
    ],
)
def test_an_attempt_that_nobody_waits_for_is_told_apart(status: JobStatus, attempt: int, expected: bool) -> None:
    assert job_of(status, attempt).awaits(2) is expected


def test_rows_of_another_kind_to_evaluate_on_are_refused_before_a_dataset_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records = [dataset_record(), dataset_record("dataset-2", format="text")]

    def take(urls: Any, config: Any, settings: Any, options: Any, check: Any, patience_s: float) -> Any:
        check(records)
        raise AssertionError

    monkeypatch.setattr(train, "take_datasets", take)
    monkeypatch.setattr(train, "_configured", lambda *_: (TrainingConfig(base_model="owner/model"), None))
    arguments = _parser().parse_args(["--dataset", "a.jsonl", "--validation-dataset", "b.txt"])
    with pytest.raises(InvalidDatasetError):
        train._register(Settings(env="test", home=tmp_path), arguments, set())


class TestCommandLine:
    def test_options_that_are_there_are_told_from_defaults(self) -> None:
        words = ["--dataset", "a.jsonl", "--from-job", "job-1", "--lora-r", "16", "--no-use-dora"]
        assert _given(words) == {"dataset", "from_job", "lora_r", "use_dora"}

    def test_one_start_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            _parser().parse_args(["--dataset", "a.jsonl", "--from-job", "job-1", "--from-adapter", "s3://b/a"])
        assert "not allowed with argument --from-job" in capsys.readouterr().err

    def test_everything_about_a_job_can_be_said(self) -> None:
        arguments = _parser().parse_args(
            ["--dataset", "a.jsonl", "--validation-dataset", "s3://bucket/b.jsonl", "--name", "My job", "--lora-r", "4",
             "--label", "team=ships", "--label", "note=a=b", "--label", "empty="]
        )  # fmt: skip
        assert (arguments.dataset, arguments.validation_dataset) == (["a.jsonl"], "s3://bucket/b.jsonl")
        assert (arguments.name, arguments.lora_r) == ("My job", 4)
        assert dict(arguments.label) == {"team": "ships", "note": "a=b", "empty": ""}

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            *(
                (["--dataset", "a", "--label", label], "argument --label: must be KEY=VALUE, the key of up to 63")
                for label in (
                    "team",
                    "=ships",
                    "a b=c",
                    f"{'k' * 64}=v",
                    f"k={'v' * 256}",
                    "k=a\x00",
                    "k=\u202e",
                    "k=v\n",
                )
            ),
            *(
                (["--dataset", "a", "--name", name], "argument --name: must have 1 to 200 characters")
                for name in ("", "n" * 201, "two\r\nlines", "\u202ename")
            ),
            (["--dataset", "a", "--job-id", "b"], "not allowed with"),
            ([], "is required"),
            (["--dataset", "a", "--batch-size", "four"], "--batch-size: invalid int value: 'four'"),
        ],
    )
    def test_what_is_malformed_is_refused(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            _parser().parse_args(words)
        assert message in capsys.readouterr().err

    def test_a_job_of_the_service_needs_no_more_than_its_id(self) -> None:
        arguments: Any = _parser().parse_args(["--job-id", "j", "--attempt", "2"])
        assert (arguments.job_id, arguments.attempt, arguments.label) == ("j", 2, [])

    def test_no_more_labels_than_the_api_takes(self) -> None:
        pairs = [(f"key-{number}", "value") for number in range(MAX_LABELS)]
        assert len(_labels_of(pairs)) == MAX_LABELS
        with pytest.raises(InvalidInputError, match="33 labels are more than the 32 that a job can have"):
            _labels_of([*pairs, ("one-more", "value")])
