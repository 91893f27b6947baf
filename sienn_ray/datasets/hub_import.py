"""Rows of a dataset on the hub, taken into storage like an uploaded file. Nothing of the repository is run."""

from __future__ import annotations

import errno
import json
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import errors as hub_errors

from sienn_ray.datasets import dataset_keys, intake
from sienn_ray.datasets.hub_files import files_of
from sienn_ray.datasets.hub_source import HubSource
from sienn_ray.datasets.ingest import IngestReport
from sienn_ray.datasets.intake import AbandonedError, TakenDataset
from sienn_ray.datasets.joining import join
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.schema import check_one_kind
from sienn_ray.errors import InvalidDatasetError, OutOfReachError, StorageFullError
from sienn_ray.retries import is_out_of_reach
from sienn_ray.storage import Storage

_MAX_NOTES = 20


@dataclass(frozen=True)
class HubFile:
    """A file of a repository."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class HubDataset:
    """A dataset as the hub has it at a commit.

    Args:
        source: What was asked for.
        commit: The commit that its revision stands for.
        files: The files that hold its rows.
    """

    source: HubSource
    commit: str
    files: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class ImportRules:
    """Rules of an import.

    Args:
        options: How files are read, where the user says so.
        max_row_bytes: The longest row accepted.
        check_size: Called with the bytes that are to be kept; raises when they are too many.
        timeout_s: Longest wait for each answer of the hub.
        uses_token: Whether the hub is asked with the service's token.
    """

    options: ReadingOptions
    max_row_bytes: int
    check_size: Callable[[int], None]
    timeout_s: float
    uses_token: bool = False

    @property
    def token(self) -> bool | None:
        """The token as the hub's client takes it: none at all, or the one of its environment."""
        return None if self.uses_token else False


def look_up(source: HubSource, rules: ImportRules) -> HubDataset:
    """Ask the hub for a dataset's commit and its files of rows.

    Raises:
        InvalidDatasetError: It is unknown, gated or has no such rows, or the hub isn't to be asked.
        OutOfReachError: The hub can't be reached, or doesn't answer in time.
    """
    with _translated(source, uses_token=rules.uses_token):
        info = huggingface_hub.dataset_info(
            source.repo,
            revision=source.revision,
            timeout=rules.timeout_s,
            files_metadata=True,
            token=rules.token,
        )
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
    names = files_of(source, sizes, info.card_data)
    files = tuple(HubFile(name, size) for name in names if (size := sizes[name]) is not None)
    if info.sha is None or len(files) < len(names):
        raise InvalidDatasetError(f"the hub doesn't say which commit {source} is at, or how large its files are")
    rules.check_size(sum(file.size_bytes for file in files))
    return HubDataset(source, info.sha, files)


def take(
    storage: Storage,
    dataset_id: str,
    found: HubDataset,
    rules: ImportRules,
    abandoned: threading.Event | None = None,
) -> tuple[str, TakenDataset]:
    """Take a dataset's rows into storage; nothing stays behind when they aren't good.

    One file is kept as it came. Several are kept as JSON lines of all their rows.

    Returns:
        The file's name, and what was taken.

    Raises:
        InvalidDatasetError: A file isn't a dataset, or they hold different kinds of rows.
        OutOfReachError: The hub can't be reached any more.
        AbandonedError: `abandoned` was set.
    """
    if len(found.files) == 1:
        name = PurePosixPath(found.files[0].name).name
        return name, _take_file(storage, dataset_id, found, found.files[0], rules)
    part_ids = [str(uuid.uuid4()) for _ in found.files]
    reports: list[tuple[str, IngestReport]] = []
    try:
        for part_id, file in zip(part_ids, found.files, strict=True):
            _check_wanted(abandoned)
            # Should this process end meanwhile, nobody was told of the part.
            storage.write_bytes(dataset_keys.unregistered_key(part_id), b"")
            reports.append((file.name, _take_file(storage, part_id, found, file, rules).report))
        kind = check_one_kind({name: report.format for name, report in reports})
        joined = join(storage, dataset_id, part_ids, kind, check_size=rules.check_size, abandoned=abandoned)
    except BaseException:
        storage.delete(dataset_keys.folder_key(dataset_id))
        raise
    finally:
        for part_id in part_ids[: len(reports) + 1]:
            storage.delete(dataset_keys.folder_key(part_id))
    name = f"{PurePosixPath(found.source.repo).name}.jsonl"
    return name, replace(joined, report=_with_remarks(joined.report, reports))


def _check_wanted(abandoned: threading.Event | None) -> None:
    if abandoned is not None and abandoned.is_set():
        raise AbandonedError


def _with_remarks(joined: IngestReport, reports: Sequence[tuple[str, IngestReport]]) -> IngestReport:
    """What is to be said of the files is to be said of all of them together."""
    ignored = dict.fromkeys(name for _, report in reports for name in report.ignored_columns)
    notes = [f"{name}: {note}" for name, report in reports for note in report.notes]
    guessed = {name: value for _, report in reversed(reports) for name, value in report.guessed.items()}
    return replace(joined, ignored_columns=tuple(ignored), notes=tuple(notes[:_MAX_NOTES]), guessed=guessed)


def _take_file(storage: Storage, dataset_id: str, found: HubDataset, file: HubFile, rules: ImportRules) -> TakenDataset:
    with tempfile.TemporaryDirectory(prefix="sienn-import-") as folder:
        with _translated(found.source, uses_token=rules.uses_token):
            path = Path(
                huggingface_hub.hf_hub_download(
                    found.source.repo,
                    file.name,
                    repo_type="dataset",
                    revision=found.commit,
                    local_dir=folder,
                    etag_timeout=rules.timeout_s,
                    token=rules.token,
                )
            )
        rules.check_size(path.stat().st_size)
        try:
            with path.open("rb") as source:
                return intake.take(
                    storage,
                    dataset_id,
                    path.name,
                    source,
                    max_row_bytes=rules.max_row_bytes,
                    options=rules.options,
                )
        except InvalidDatasetError as error:
            raise InvalidDatasetError(f"{file.name}: {error.message}") from error


@contextmanager
def _translated(source: HubSource, *, uses_token: bool) -> Iterator[None]:
    """Turn errors of the hub's client into words for who asked."""
    key = "or have its operator set HF_TOKEN" if uses_token else "or have its operator set SIENN_HUB_DATASETS_USE_TOKEN"
    try:
        yield
    except hub_errors.GatedRepoError as error:
        raise InvalidDatasetError(
            f"{source.repo} is gated: the hub gives it to those alone who have accepted its terms; download its files "
            f"with an account that has, and upload them, {key} for the service"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise InvalidDatasetError(
            f"{source.repo} has no revision '{source.revision}'; give a branch, tag or commit that its page on the hub "
            "lists, or leave it out for the main branch"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise InvalidDatasetError(
            f"there is no dataset {source.repo} on the hub, or it is private; check the id, {key} for the service"
        ) from error
    except (httpx2.HTTPError, OSError, json.JSONDecodeError) as error:
        raise _error_of(source, error) from error


def _error_of(source: HubSource, error: Exception) -> Exception:
    offline = hub_errors.OfflineModeIsEnabled
    if isinstance(error, offline) or isinstance(error.__cause__, offline):
        return InvalidDatasetError(
            f"{source} can't be imported: this service doesn't ask the hub (HF_HUB_OFFLINE is set); download its files "
            "on another machine and upload them"
        )
    response: Any = getattr(error, "response", None)
    if response is not None and not is_out_of_reach(error):
        return InvalidDatasetError(f"the hub refuses {source} with status {response.status_code}; check the id")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFullError(f"{source} can't be downloaded to this machine ({error.strerror})")
    return OutOfReachError.of("the hub", error)
