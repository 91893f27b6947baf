"""The batch entry point: one fine-tune, as the driver of one Ray job.

The service starts it with `--job-id`. A person starts the same program with `ray job submit`:

    ray job submit -- python -m sienn_ray.train --dataset s3://bucket/rows.jsonl --base-model Qwen/Qwen2.5-0.5B-Instruct

Such a job registers with the tracker, so it shows in `GET /api/jobs` and its adapter can be tried like any other.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import fsspec
import ray
from pydantic import ValidationError

from sienn_ray import catalog
from sienn_ray.datasets import intake
from sienn_ray.errors import FailureReason, InvalidBaseModelError, InvalidDatasetError, SiennError, TrainingError
from sienn_ray.jobs.client import NAMESPACE, TrainingSession, ask, get_or_create_tracker
from sienn_ray.jobs.schema import DatasetRecord, JobRecord, JobStatus, utc_now
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.config import TrainingConfig

logger = logging.getLogger("sienn_ray.train")

_MAX_MESSAGE_CHARS = 1000
_CONFIG_OPTIONS = {
    "learning_rate": float,
    "num_epochs": int,
    "batch_size": int,
    "max_length": int,
    "warmup_ratio": float,
    "weight_decay": float,
    "validation_split": float,
    "seed": int,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one fine-tune; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Ray Train looks at its workers this often, and hands over their reports as often; its default is 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    ray.init(address="auto", namespace=NAMESPACE, ignore_reinit_error=True)
    get_or_create_tracker(Settings())
    settings: Settings = ask("settings")
    try:
        job = _known(arguments) if arguments.job_id else _register(settings, arguments)
    except SiennError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 2
    return _run(job, ask("dataset", job.dataset_id), settings, TrainingSession(job))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sienn_ray.train", description="Fine-tune one LoRA adapter.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--job-id", help="a job that the tracker has (the service uses this)")
    what.add_argument("--dataset", help="fsspec URL or path of a CSV, JSON or JSONL file")
    parser.add_argument("--attempt", type=int, help="which attempt at that job this is")
    parser.add_argument("--base-model", help="hub id of the base model", default=catalog.CATALOG[0].id)
    for name, kind in _CONFIG_OPTIONS.items():
        default = TrainingConfig.model_fields[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=f"default {default}")
    return parser


def _known(arguments: argparse.Namespace) -> JobRecord:
    """The job to train. Its attempt comes with the command: the record may not have it yet."""
    job: JobRecord = ask("job", arguments.job_id)
    return job.model_copy(update={"attempt": arguments.attempt or job.attempt})


def _register(settings: Settings, arguments: argparse.Namespace) -> JobRecord:
    """Make a dataset and a running job of what was given on the command line.

    Raises:
        SiennError: Dataset, base model or hyperparameters can't be used.
    """
    try:
        options = {name: getattr(arguments, name) for name in _CONFIG_OPTIONS}
        config = TrainingConfig(base_model=arguments.base_model, **options)
    except ValidationError as error:
        raise TrainingError(str(error)) from error
    catalog.resolve(config.base_model, settings.hub_timeout_s)
    dataset = ask("add_dataset", _take_dataset(arguments.dataset, settings))
    now = utc_now()
    job = JobRecord(
        id=str(uuid.uuid4()),
        dataset_id=dataset.id,
        config=config,
        status=JobStatus.RUNNING,
        attempt=1,
        submission_id=_own_submission_id(),
        message="Started by hand as a Ray job",
        created_at=now,
        updated_at=now,
    )
    sys.stdout.write(f"job_id: {job.id}\n")
    registered: JobRecord = ask("add_job", job)
    return registered


def _take_dataset(url: str, settings: Settings) -> DatasetRecord:
    filename = PurePosixPath(urlsplit(url).path).name
    dataset_id = str(uuid.uuid4())
    storage = Storage(settings.storage_url)
    try:
        with fsspec.open(url, "rb") as source:
            taken = intake.take(storage, dataset_id, filename, source, max_row_bytes=settings.max_row_bytes)
    except OSError as error:
        raise InvalidDatasetError(f"--dataset {url} can't be read: {error}") from error
    return DatasetRecord.of_report(dataset_id, filename, taken.size_bytes, taken.sha256, taken.report)


def _own_submission_id() -> str:
    """Submission id of the Ray job that runs this program.

    Raises:
        TrainingError: It wasn't started as a Ray job, so nobody could look after it.
    """
    from ray.job_submission import JobSubmissionClient

    context = ray.get_runtime_context()
    details = JobSubmissionClient(context.gcs_address).get_job_info(context.get_job_id())
    if not details.submission_id:
        raise TrainingError("start this program with `ray job submit -- python -m sienn_ray.train ...`")
    return str(details.submission_id)


def _run(job: JobRecord, dataset: DatasetRecord, settings: Settings, session: TrainingSession) -> int:
    # Imported here: they bring torch along, which the job's registration needn't wait for.
    from sienn_ray.training.trainer import Run, delete_checkpoints, run_training

    run = Run(
        job_id=job.id,
        config=job.config,
        rows_key=intake.rows_key(dataset.id),
        is_text=dataset.format == "text",
        adapter_key=job.adapter_key,
    )
    try:
        facts = run_training(run, settings, session)
    except SiennError as error:
        logger.exception("job %s failed", job.id)
        session.fail(_reason(error), error.message)
        return 1
    except Exception as error:
        logger.exception("job %s failed", job.id)
        words = f"{type(error).__name__}: {error}"[:_MAX_MESSAGE_CHARS]
        session.fail(FailureReason.INTERNAL, f"{words}; see the log of Ray job {job.submission_id}")
        return 1
    session.complete(facts)
    # Not before: until the end is noted, another attempt may have to pick the checkpoints up.
    delete_checkpoints(run, settings)
    logger.info("job %s completed", job.id)
    return 0


def _reason(error: SiennError) -> FailureReason:
    if isinstance(error, TrainingError):
        return error.reason
    if isinstance(error, InvalidDatasetError):
        return FailureReason.INVALID_DATASET
    return FailureReason.INVALID_BASE_MODEL if isinstance(error, InvalidBaseModelError) else FailureReason.STORAGE


if __name__ == "__main__":
    sys.exit(main())
