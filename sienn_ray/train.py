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
from collections.abc import Collection, Sequence

import psutil
import ray

from sienn_ray import catalog
from sienn_ray.context_length import check_context
from sienn_ray.datasets.reading_options import options_of
from sienn_ray.datasets.schema import check_one_kind, check_same_kind
from sienn_ray.datasets.weights import MAX_DATASETS, WeightedDataset, check_weight, parsed_weight
from sienn_ray.errors import (
    FailureReason,
    FencedError,
    InvalidInputError,
    NotFoundError,
    OutOfReachError,
    SiennError,
    TrainingError,
)
from sienn_ray.inference.adapter_kinds import kind_for_adapter
from sienn_ray.inference.applications import EngineKey, prefetch
from sienn_ray.jobs.client.given_datasets import take_datasets
from sienn_ray.jobs.client.run_session import TrainingSession
from sienn_ray.jobs.client.tracker_client import ask_patiently
from sienn_ray.jobs.client.tracker_handle import NAMESPACE
from sienn_ray.jobs.naming import (
    LABEL_WORDS,
    MAX_LABELS,
    MAX_NAME_CHARS,
    is_label,
    is_name,
)
from sienn_ray.jobs.run_inputs import JobDatasets, run_of
from sienn_ray.jobs.schema import DatasetRecord, JobRecord, JobStatus, utc_now
from sienn_ray.jobs.shared_rows import shared_rows_words
from sienn_ray.jobs.starts import (
    check_adapter,
    check_completed,
    check_revision,
    continued,
    settled_parent,
    taken_adapter,
)
from sienn_ray.jobs.supervision.ray_job_client import RayJobClient
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.module_names import check_target_modules
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training import process_setup
from sienn_ray.training.advice import warnings_of
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.methods import method_of
from sienn_ray.training.options import add_options, config_of
from sienn_ray.training.reporting import Phase, Progress
from sienn_ray.training.resources import withdraw_request
from sienn_ray.training.stopping import leave_on_sigterm
from sienn_ray.training.timeline import Timeline

logger = logging.getLogger("sienn_ray.train")

# The tracker is restarted, or replaced in a redeploy. Without a service nothing can be trained.
_PATIENCE_S = 60.0
# The whole message of an error that nobody foresaw, since it is all that the job says of it.
_MAX_ERROR_CHARS = 1000
# A process has to start, and an engine to load an adapter.
_LOAD_AHEAD_TIMEOUT_S = 120.0
_READING_OPTIONS = {
    "encoding": "encoding of both files where it isn't UTF-8, such as windows-1252",
    "separator": "separator of CSV files: comma, semicolon, tab or pipe; told from the file by default",
    "columns": "columns by the names that they stand for, as in Frage=question,Antwort=answer, or as JSON",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one fine-tune; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Ray Train looks at its workers this often, and knows of a checkpoint only then; its default is 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Its process tells the loop of nodes about to go; ours asks for no such word, and goes on from its last checkpoint.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    process_setup.set_up()
    runtime_env = {"worker_process_setup_hook": process_setup.HOOK}
    ray.init(address="auto", namespace=NAMESPACE, ignore_reinit_error=True, runtime_env=runtime_env)
    leave_on_sigterm(withdraw_request)
    try:
        settings = ask_patiently(_PATIENCE_S, Tracker.settings)
        job = _known(arguments) if arguments.job_id else _register(settings, arguments, _given(argv))
    except SiennError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 2
    if job is None:
        return 0
    timeline = _timeline_of(job)
    return _run(job, _datasets_of(job), settings, TrainingSession(job), timeline)


def _timeline_of(job: JobRecord) -> Timeline:
    """Where the time since the submission went so far; that of a later attempt begins with its own program."""
    program_started_at = psutil.Process().create_time()
    is_first = job.attempt == 1
    timeline = Timeline(job.created_at.timestamp() if is_first else program_started_at)
    timeline.mark("wait_and_submit", at=program_started_at)
    timeline.mark("join_cluster")
    return timeline


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sienn_ray.train", description="Fine-tune one LoRA adapter.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--job-id", help="a job that the tracker has (the service uses this)")
    what.add_argument(
        "--dataset",
        action="append",
        help="fsspec URL or path of a CSV, JSON, JSONL, Parquet or text file, or hf:OWNER/NAME; several are mixed",
    )
    parser.add_argument(
        "--weight",
        type=_weight,
        action="append",
        default=[],
        metavar="X",
        help="how often an epoch has each row of a dataset; one for each --dataset, in their order; by default 1",
    )
    parser.add_argument("--attempt", type=int, help="which attempt at that job this is")
    parser.add_argument("--validation-dataset", help="the same for rows to evaluate on; nothing is held out then")
    for name, words in _READING_OPTIONS.items():
        parser.add_argument(f"--{name}", action="append", default=[], help=words)
    parser.add_argument("--base-model", help="hub id of the base model", default=catalog.CATALOG[0].id)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--from-job", metavar="JOB_ID", help="start from the adapter of this completed job")
    start.add_argument(
        "--from-adapter",
        metavar="URL",
        help="start from a LoRA adapter in PEFT's format: fsspec URL or path of a folder",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the base model; by default its main branch")
    parser.add_argument("--name", type=_name, help="a name to find the job by")
    parser.add_argument(
        "--label", metavar="KEY=VALUE", type=_label, action="append", default=[], help="may be given more than once"
    )
    add_options(parser)
    return parser


def _given(argv: Sequence[str] | None) -> set[str]:
    """Names of the options that are there, rather than left at their defaults."""
    parser = _parser()
    # What is there already keeps a default from being put in its place.
    nothing = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args(argv))))
    return {name for name, value in vars(parser.parse_args(argv, nothing)).items() if value is not None}


def _name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"must have 1 to {MAX_NAME_CHARS} characters, all of them printable")
    return text


def _weight(text: str) -> float:
    try:
        return parsed_weight(text)
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _weights_of(arguments: argparse.Namespace) -> list[float]:
    """One weight for each dataset."""
    num_datasets, weights = len(arguments.dataset), arguments.weight
    if num_datasets > MAX_DATASETS:
        raise InvalidInputError(f"{num_datasets} datasets are more than the {MAX_DATASETS} that can be mixed")
    if weights and len(weights) != num_datasets:
        raise InvalidInputError(
            f"{len(weights)} --weight were given for {num_datasets} --dataset; give one for each, or none"
        )
    return weights or [1.0] * num_datasets


def _label(text: str) -> tuple[str, str]:
    if not is_label(text):
        raise argparse.ArgumentTypeError(LABEL_WORDS)
    key, _, value = text.partition("=")
    return key, value


def _labels_of(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    labels = dict(pairs)
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"{len(labels)} labels are more than the {MAX_LABELS} that a job can have; drop some")
    return labels


def _known(arguments: argparse.Namespace) -> JobRecord | None:
    """The job to train, or None when nobody waits for this attempt any more."""
    try:
        job = ask_patiently(_PATIENCE_S, Tracker.job, arguments.job_id)
    except NotFoundError:
        logger.info("job %s isn't there any more; nothing to do", arguments.job_id)
        return None
    attempt = arguments.attempt or job.attempt
    if not job.awaits(attempt):
        logger.info("attempt %d at job %s isn't awaited: it is '%s'; nothing to do", attempt, job.id, job.status)
        return None
    return job.model_copy(update={"attempt": attempt})


def _register(settings: Settings, arguments: argparse.Namespace, given: Collection[str]) -> JobRecord:
    """Make datasets and a running job of what was given on the command line.

    Raises:
        SiennError: A dataset, the base model or a hyperparameter can't be used.
    """
    config, parent = _configured(settings, arguments, given)
    weights = _weights_of(arguments)
    options = options_of({name: getattr(arguments, name) for name in _READING_OPTIONS})
    urls = [*arguments.dataset, *([arguments.validation_dataset] if arguments.validation_dataset else [])]
    storage, job_id = Storage(settings.storage_url), str(uuid.uuid4())
    warnings: tuple[str, ...] = ()

    def check(records: Sequence[DatasetRecord]) -> None:
        nonlocal warnings
        trained = records[: len(weights)]
        row_kind = check_one_kind({record.id: record.format for record in trained})
        for record in records[len(weights) :]:
            check_same_kind(trained[0].format, record.format)
        method_of(row_kind, config.method)
        for record, weight in zip(trained, weights, strict=True):
            check_weight(record.filename, weight, record.num_rows)
        if parent is not None:
            check_adapter(storage, parent, row_kind)
        num_rows = sum(round(weight * record.num_rows) for record, weight in zip(trained, weights, strict=True))
        warnings = (
            *shared_rows_words(trained, *records[len(weights) :]),
            *warnings_of(config, row_kind, num_rows, given),
        )

    with taken_adapter(arguments.from_adapter, job_id, storage, config) as start_key:
        records = take_datasets(urls, config, settings, options, check, _PATIENCE_S)
    datasets, (validation, *_) = records[: len(weights)], [*records[len(weights) :], None]
    for words in warnings:
        sys.stdout.write(f"warning: {words}\n")
    now = utc_now()
    job = JobRecord(
        id=job_id,
        from_job=parent and parent.id,
        start_key=start_key,
        warnings=warnings,
        dataset_id=datasets[0].id,
        datasets=tuple(
            WeightedDataset(dataset_id=dataset.id, weight=weight)
            for dataset, weight in zip(datasets, weights, strict=True)
        ),
        validation_dataset_id=validation.id if validation else None,
        name=arguments.name,
        labels=_labels_of(arguments.label),
        config=config,
        status=JobStatus.RUNNING,
        attempt=1,
        submission_id=_own_submission_id(),
        message="Started by hand as a Ray job",
        created_at=now,
        updated_at=now,
    )
    sys.stdout.write(f"job_id: {job.id}\n")
    return ask_patiently(_PATIENCE_S, Tracker.add_job, job)


def _configured(
    settings: Settings, arguments: argparse.Namespace, given: Collection[str]
) -> tuple[TrainingConfig, JobRecord | None]:
    """The configuration, pinned to a commit of its base model, and the job that it starts from."""
    config, revision, parent = config_of(arguments.base_model, arguments, settings), arguments.revision, None
    if arguments.from_job:
        parent = ask_patiently(_PATIENCE_S, Tracker.job, arguments.from_job)
        check_completed(parent)
        parent = settled_parent(Storage(settings.storage_url, settings.outage_patience_s), parent)
        config = continued(config, given, parent)
        revision = revision or parent.config.base_model_revision
    kind_for_adapter(config.lora.serving_fields, settings)
    found = catalog.resolve(config.base_model, settings.hub_timeout_s, revision, settings.admission_rules)
    check_context(config.base_model, found.context_tokens, config.max_length)
    check_target_modules(config.base_model, found, config.lora.named_modules)
    if parent is not None:
        check_revision(found.revision, parent)
    return config.pinned(found.revision), parent


def _own_submission_id() -> str:
    """Submission id of the Ray job that runs this program.

    Raises:
        TrainingError: It wasn't started as a Ray job, so nobody could look after it.
    """
    ray_job_id = ray.get_runtime_context().get_job_id()
    details = RayJobClient().call(lambda client: client.get_job_info(ray_job_id))
    if not details.submission_id:
        raise TrainingError("start this program with `ray job submit -- python -m sienn_ray.train ...`")
    return str(details.submission_id)


def _datasets_of(job: JobRecord) -> JobDatasets:
    """The datasets that the job reads, as the tracker has them."""
    trained = tuple(ask_patiently(_PATIENCE_S, Tracker.dataset, each.dataset_id) for each in job.trained_on)
    if job.validation_dataset_id is None:
        return JobDatasets(trained)
    return JobDatasets(trained, ask_patiently(_PATIENCE_S, Tracker.dataset, job.validation_dataset_id))


def _run(
    job: JobRecord,
    datasets: JobDatasets,
    settings: Settings,
    session: TrainingSession,
    timeline: Timeline,
) -> int:
    """Train, and tell the tracker how it ended; returns the exit code."""
    try:
        return _train(job, datasets, settings, session, timeline)
    except FencedError as error:
        # Not 0, which would be the end of an attempt that is awaited.
        logger.warning("attempt %d ends: %s", job.attempt, error.message)
        return 3


def _train(
    job: JobRecord,
    datasets: JobDatasets,
    settings: Settings,
    session: TrainingSession,
    timeline: Timeline,
) -> int:
    # Imported here: they bring torch along, which the job's registration needn't wait for.
    from sienn_ray.training.failures import reason_of
    from sienn_ray.training.trainer import delete_checkpoints, run_training

    timeline.mark("import_program")

    try:
        run = run_of(job, datasets, timeline)
        summary = run_training(run, settings, session)
    except FencedError:
        raise
    except SiennError as error:
        logger.exception("job %s failed", job.id)
        if isinstance(error, OutOfReachError) and job.attempt - job.attempt_base < settings.max_attempts:
            # A program that ends without a word is started again, and goes on from the last checkpoint.
            session.report(Progress.of_phase(Phase.WAITING_FOR_RESOURCES, f"Another attempt follows: {error.message}"))
            return 1
        session.fail(reason_of(error), error.message)
        return 1
    except Exception as error:
        logger.exception("job %s failed", job.id)
        words = f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS]
        session.fail(FailureReason.INTERNAL, f"{words}; see the log of Ray job {job.submission_id}")
        return 1
    if summary is None:
        session.pause()
        logger.info("job %s paused; its checkpoints stay", job.id)
        return 0
    session.complete(summary)
    # Not before: until the end is noted, another attempt may have to pick the checkpoints up.
    if _is_completed(job.id):
        delete_checkpoints(run, settings)
        _load_ahead(job, settings)
    logger.info("job %s completed", job.id)
    return 0


def _load_ahead(job: JobRecord, settings: Settings) -> None:
    """Have a running engine load the adapter; in a process of its own.

    One that has asked Serve for anything prints the lines of all its replicas from then on, which are no part of this
    job's log.
    """
    remote = ray.remote(num_cpus=0, max_retries=0)(prefetch)
    try:
        kind = kind_for_adapter(job.config.lora.serving_fields, settings)
        engine = EngineKey(job.config.base_model, job.config.base_model_revision, kind)
        # Logged here, since what another process logs isn't in the job's log.
        logger.info("%s", ray.get(remote.remote(engine, job.id, job.adapter_key), timeout=_LOAD_AHEAD_TIMEOUT_S))
    except Exception as error:  # the first request loads the adapter as well
        logger.warning("adapter %s wasn't loaded ahead: %s", job.id, type(error).__name__)


def _is_completed(job_id: str) -> bool:
    """Whether the tracker took the end of the run: one that was cancelled meanwhile may be resumed later."""
    try:
        job = ask_patiently(_PATIENCE_S, Tracker.job, job_id)
    except Exception:  # the run is over either way, and checkpoints that stay do no harm
        logger.warning("checkpoints of job %s are kept, since the tracker doesn't say how it stands", job_id)
        return False
    return job.status is JobStatus.COMPLETED


if __name__ == "__main__":
    sys.exit(main())
