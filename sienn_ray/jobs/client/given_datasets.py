"""Datasets that a training program is given by a person, taken into the service's storage."""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import fsspec

from sienn_ray.datasets import dataset_keys, intake
from sienn_ray.datasets.hub_import import ImportRules, look_up, take
from sienn_ray.datasets.hub_source import PREFIX, HubSource
from sienn_ray.datasets.intake import TakenDataset
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.schema import row_kind
from sienn_ray.errors import InvalidDatasetError, SiennError
from sienn_ray.jobs.client.tracker_client import ask_patiently
from sienn_ray.jobs.schema import DatasetRecord
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.template_check.check import find_verdict, render_in_process
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.long_rows import check_kind

logger = logging.getLogger(__name__)


def take_datasets(
    urls: Sequence[str],
    config: TrainingConfig,
    settings: Settings,
    options: ReadingOptions,
    check: Callable[[Sequence[DatasetRecord]], None],
    patience_s: float,
) -> list[DatasetRecord]:
    """Take files, or datasets of the hub, into storage, and note them with the tracker if they can be trained on.

    Args:
        urls: fsspec URLs or paths, or names of datasets on the hub.
        config: Says what they are to be trained with.
        settings: Of the service.
        options: How to read files.
        check: Called with all records; raises if they don't go together.
        patience_s: Longest time to ask the tracker.

    Raises:
        InvalidInputError: One can't be trained on; nothing is left of any then.
    """
    storage = Storage(settings.storage_url)
    taken: list[DatasetRecord] = []
    try:
        for url in urls:
            taken.append(_take_dataset(url, storage, settings, options))
        check(taken)
        for record in taken:
            _check_rendered(record, config, settings, storage)
    except SiennError:
        for record in taken:
            storage.delete(dataset_keys.folder_key(record.id))
        raise
    return [ask_patiently(patience_s, Tracker.add_dataset, record, storage.url) for record in taken]


def _check_rendered(record: DatasetRecord, config: TrainingConfig, settings: Settings, storage: Storage) -> None:
    check_kind(config.long_rows, row_kind(record.format))
    request = record.template_request(config)
    verdict = find_verdict(request, settings, storage, render_in_process)
    if verdict is not None:
        verdict.check(request)
        for words in verdict.warnings(request):
            sys.stdout.write(f"warning: {words}\n")


def _take_dataset(url: str, storage: Storage, settings: Settings, options: ReadingOptions) -> DatasetRecord:
    """Take a file, or a dataset of the hub, into storage."""
    dataset_id = str(uuid.uuid4())
    origin: dict[str, str] = {}
    if url.startswith(PREFIX):
        filename, taken, origin = _import_dataset(url, dataset_id, storage, settings, options)
    else:
        filename = PurePosixPath(urlsplit(url).path).name
        try:
            with fsspec.open(url, "rb") as source:
                taken = intake.take(
                    storage, dataset_id, filename, source, max_row_bytes=settings.max_row_bytes, options=options
                )
        except OSError as error:
            raise InvalidDatasetError(f"the dataset {url} can't be read: {error}") from error
    record = DatasetRecord.of_report(
        dataset_id, filename, taken.size_bytes, taken.sha256, taken.report, options=options
    ).model_copy(update=origin)
    for name, value in record.reading.guessed.items():
        logger.info("%s: guessed %s: %r", filename, name, value)
    for note in record.reading.notes:
        logger.warning("%s: %s", filename, note)
    if record.reading.ignored_columns:
        logger.warning("%s: ignored columns: %s", filename, ", ".join(record.reading.ignored_columns))
    return record


def _import_dataset(
    url: str, dataset_id: str, storage: Storage, settings: Settings, options: ReadingOptions
) -> tuple[str, TakenDataset, dict[str, str]]:
    """Take a dataset of the hub into storage; returns its file's name, what was taken, and its origin."""
    source = HubSource.parsed(url)
    rules = ImportRules(
        options=options,
        max_row_bytes=settings.max_row_bytes,
        check_size=lambda num_bytes: _check_size(num_bytes, settings),
        timeout_s=settings.hub_timeout_s,
        uses_token=settings.hub_datasets_use_token,
    )
    found = look_up(source, rules)
    name, taken = take(storage, dataset_id, found, rules)
    return name, taken, {"source": str(source), "source_revision": found.commit}


def _check_size(num_bytes: int, settings: Settings) -> None:
    if num_bytes > settings.max_upload_bytes:
        raise InvalidDatasetError(
            f"the dataset has {num_bytes} bytes, and at most {settings.max_upload_bytes} are taken "
            "(SIENN_MAX_UPLOAD_BYTES); name one of its splits or configurations, or raise the limit"
        )
