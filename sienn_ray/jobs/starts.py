"""Starts from another job's adapter: what a job takes over from it, and what doesn't fit."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import fsspec
from pydantic import ValidationError

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import ArtifactError, InvalidInputError, JobStateError, SiennError
from sienn_ray.fault_words import words_of
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.storage import Storage
from sienn_ray.storage_keys import start_key
from sienn_ray.training.adapter.start_checks import check_config
from sienn_ray.training.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, START_SOURCE
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.hyperparameters import config_of, flat_values
from sienn_ray.training.temporary_folders import temporary_folder

# Hyperparameters that say what an adapter's weights are, how they count, and which prompts they know.
OF_THE_ADAPTER = (
    "lora_r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "use_dora",
    "quantization",
    "chat_template_kwargs",
    "special_tokens",
)


def check_completed(parent: JobRecord) -> None:
    """Refuse to start from a job that has no adapter.

    Raises:
        JobStateError: It isn't completed.
    """
    if parent.status is not JobStatus.COMPLETED:
        raise JobStateError(
            f"from_job={parent.id} is '{parent.status}', and only a completed job has an adapter to start from; wait "
            "until it is completed, or name another one"
        )


def settled_parent(storage: Storage, parent: JobRecord) -> JobRecord:
    """Return the job with what its run found out of how special tokens in plain text are meant, which its adapter has.

    Jobs whose base model wasn't here when they were submitted settled that when they ran.
    """
    if not parent.config.is_auto:
        return parent
    try:
        found = PromptFormat.from_json(storage.read_bytes(f"{parent.adapter_key}/{PROMPT_FORMAT_FILE}").decode())
    except (OSError, ArtifactError):  # storage is away, or the adapter is gone, which is told in its place
        return parent
    if found.kind is not PromptKind.TEXT:  # in messages they are always text
        return parent
    return parent.model_copy(update={"config": parent.config.settled(found.options.special_tokens)})


def continued(config: TrainingConfig, given: Collection[str], parent: JobRecord) -> TrainingConfig:
    """Return a configuration that goes on from a job's adapter, with that one's base model and shape.

    Args:
        config: What was asked for.
        given: Names of what was asked for, in a flat list, rather than left at its default; `base_model` among them.
        parent: The job that has the adapter.

    Raises:
        InvalidInputError: Something was asked for that isn't as in that adapter, or doesn't go with what it hands down.
    """
    if "base_model" in given and config.base_model != parent.config.base_model:
        raise _other("model_name", config.base_model, parent.config.base_model, parent)
    asked, theirs = flat_values(config.model_dump()), flat_values(parent.config.model_dump())
    for name in OF_THE_ADAPTER:
        is_open = name == "special_tokens" and "auto" in (asked[name], theirs[name])
        if name in given and not is_open and _comparable(asked[name]) != _comparable(theirs[name]):
            raise _other(name, asked[name], theirs[name], parent)
    values = {**asked, **{name: theirs[name] for name in OF_THE_ADAPTER}}
    if theirs["special_tokens"] == "auto":
        values["special_tokens"] = asked["special_tokens"]
    try:
        return config_of(parent.config.base_model, values)
    except ValidationError as error:
        words = "; ".join(map(words_of, error.errors()))
        changed = [name for name in OF_THE_ADAPTER if asked[name] != theirs[name]]
        inherited = [f"{name}={_shown(theirs[name])}" for name in changed if name in words] or [
            f"{name}={_shown(theirs[name])}" for name in changed
        ]
        raise InvalidInputError(
            f"from_job={parent.id} hands down {', '.join(inherited)}, and that doesn't go with what else is asked for: "
            f"{words}; or start from another job"
        ) from error


def check_revision(commit: str | None, parent: JobRecord) -> None:
    """Refuse another commit of the base model than the adapter was trained on.

    Raises:
        InvalidInputError: It is another one.
    """
    known = parent.config.base_model_revision
    if commit is not None and known is not None and commit != known:
        raise InvalidInputError(
            f"from_job={parent.id} was trained on commit {known} of {parent.config.base_model}, and this job would be "
            f"on {commit}; leave out revision, or train that job again on the other commit"
        )


def check_adapter(storage: Storage, parent: JobRecord, row_kind: RowKind) -> None:
    """Refuse an adapter that is gone, or that was trained on another kind of prompts.

    Raises:
        InvalidInputError: It can't be started from.
        OSError: Storage is out of reach.
    """
    if not storage.is_published(parent.adapter_key):
        raise InvalidInputError(
            f"the adapter of from_job={parent.id} isn't in storage any more; name another job, or train that one again"
        )
    try:
        found = PromptFormat.from_json(storage.read_bytes(f"{parent.adapter_key}/{PROMPT_FORMAT_FILE}").decode()).kind
    except FileNotFoundError:
        return
    wanted = PromptKind.TEXT if row_kind is RowKind.TEXT else PromptKind.CHAT
    if found is not wanted:
        raise InvalidInputError(
            f"from_job={parent.id} was trained on {_PROMPTS[found]}, and the dataset has {row_kind.plural}; choose a "
            "dataset of that kind, or start from another job"
        )


@contextmanager
def taken_adapter(url: str | None, job_id: str, storage: Storage, config: TrainingConfig) -> Iterator[str | None]:
    """Keep an adapter's files in storage as `take_adapter` does, if there is one, unless an error comes meanwhile.

    Raises:
        SiennError: The adapter doesn't go with the job.
    """
    key = None if url is None else take_adapter(url, job_id, storage, config)
    try:
        yield key
    except SiennError:
        if key is not None:
            storage.delete(key)
        raise


def take_adapter(url: str, job_id: str, storage: Storage, config: TrainingConfig) -> str:
    """Copy the files of an adapter's folder into storage, where all attempts find them; returns their key.

    Args:
        url: fsspec URL or path of the folder.
        job_id: The job that starts from it.
        storage: Where to.
        config: Of the job.

    Raises:
        InvalidInputError: It isn't a folder with an adapter.
        ArtifactError: Its configuration can't be read.
        TrainingError: It doesn't go with the job.
    """
    names = {ADAPTER_WEIGHTS, ADAPTER_CONFIG, PROMPT_FORMAT_FILE}
    key = start_key(job_id)
    with temporary_folder("adapter") as folder:
        try:
            filesystem, path = fsspec.url_to_fs(url)
            found = {PurePosixPath(name).name for name in filesystem.ls(path, detail=False)} & names
            for name in sorted(found):
                filesystem.get_file(f"{path.rstrip('/')}/{name}", str(folder / name))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"the adapter {url} can't be read: {error}") from error
        if missing := {ADAPTER_WEIGHTS, ADAPTER_CONFIG} - found:
            raise InvalidInputError(
                f"{url} has no {' and no '.join(sorted(missing))}; name the folder of a LoRA adapter"
            )
        check_config(folder, config)
        (folder / START_SOURCE).write_text(json.dumps({"url": without_secrets(url)}))
        storage.publish(folder, key)
    return key


def without_secrets(url: str) -> str:
    """Return a URL without what may be a password or a signature in it."""
    return re.sub(r"//[^/]*@", "//", re.split("[?#]", url)[0])


_PROMPTS = {PromptKind.TEXT: "plain text", PromptKind.CHAT: "conversations in the base model's chat template"}


def _comparable(value: Any) -> Any:
    return sorted(value) if isinstance(value, list | tuple) else value


def _other(name: str, asked: Any, theirs: Any, parent: JobRecord) -> InvalidInputError:
    return InvalidInputError(
        f"{name} is {_shown(asked)}, and in from_job={parent.id} it is {_shown(theirs)}: an adapter goes on as it was "
        f"made; leave {name} out, or start from another job"
    )


def _shown(value: Any) -> str:
    return "none" if value is None else ",".join(value) if isinstance(value, list | tuple) else str(value)
