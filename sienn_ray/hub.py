"""Models on the hub and in its local cache: their commits, files and configurations. Nothing here imports torch."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import filter_repo_objects

from sienn_ray.admission import (
    ADAPTER_FILE,
    CONFIG_FILE,
    NO_RULES,
    AdmissionRules,
    check_config_size,
    check_no_adapter,
    read_config,
)
from sienn_ray.errors import InvalidBaseModelError, OutOfReachError, StorageFullError
from sienn_ray.retries import is_out_of_reach

MAX_REVISION_CHARS = 128
# A branch, a tag or a commit, of the characters that such names are usually made of.
REVISION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*$"
# What a tokenizer is loaded from, and a causal LM; pickled weights and code are left on the hub.
TOKENIZER_PATTERNS = ["*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
SNAPSHOT_PATTERNS = [*TOKENIZER_PATTERNS, "*.safetensors"]
_REPOSITORY_PREFIX = "models--"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS, _WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"


class UnreachableHubError(Exception):
    """The hub isn't to be asked: offline mode is set."""


@dataclass(frozen=True)
class HubModel:
    """A model as the hub has it.

    Args:
        commit: The commit that was looked up; None where the hub doesn't say.
        config: The content of its `config.json`.
        size_bytes: Bytes of the files that are loaded; None where the hub doesn't say.
    """

    commit: str | None
    config: dict[str, Any]
    size_bytes: int | None = None


def check_revision(base_model: str, revision: str) -> str:
    """Return the revision if it is formed like one.

    Raises:
        InvalidBaseModelError: It isn't.
    """
    if len(revision) > MAX_REVISION_CHARS or not re.fullmatch(REVISION_PATTERN, revision):
        raise InvalidBaseModelError(
            f"revision {revision[:MAX_REVISION_CHARS]!r} of base model '{base_model}' is no branch, tag or commit "
            f"(letters, digits, '.', '_', '-', '/', at most {MAX_REVISION_CHARS} characters)"
        )
    return revision


def commit_of(folder: Path) -> str | None:
    """Return the commit of a model's folder, or None where that is no snapshot of the hub's cache."""
    is_snapshot = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
    return folder.name if is_snapshot else None


def model_id_of(folder: Path) -> str | None:
    """Return the id of the model in a folder of the hub's cache, or None where it is no such folder."""
    names = [part for part in folder.parts if part.startswith(_REPOSITORY_PREFIX)]
    return names[-1].removeprefix(_REPOSITORY_PREFIX).replace("--", "/") if names else None


def cached_snapshot(base_model: str, revision: str | None = None) -> Path | None:
    """Folder of the model in the local hub cache, or None unless configuration and all weights are there."""
    config = huggingface_hub.try_to_load_from_cache(base_model, CONFIG_FILE, revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if has_weights(folder) else None


def has_weights(folder: Path) -> bool:
    """Return whether all weight files of a model's folder are there."""
    index = folder / _WEIGHTS_INDEX
    if not index.exists():
        return (folder / _WEIGHTS).exists()
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values())
        return all((folder / shard).exists() for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidBaseModelError(
            f"{_WEIGHTS_INDEX} in {folder.name} is no index of weights ({type(error).__name__}); choose another model"
        ) from error


def _translated(base_model: str, error: Exception) -> Exception:
    """What an error of the hub's client means for who asked."""
    response = getattr(error, "response", None)
    if isinstance(error, hub_errors.OfflineModeIsEnabled) or isinstance(
        error.__cause__, hub_errors.OfflineModeIsEnabled
    ):
        return UnreachableHubError()
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFullError(f"there is no room left for base model '{base_model}'; free some in the hub's cache")
    if response is not None and not is_out_of_reach(error):
        return InvalidBaseModelError(
            f"the hub refuses base model '{base_model}' with status {response.status_code}; check the id, or "
            "set HF_TOKEN for the service"
        )
    return OutOfReachError.of("the model hub", error)


def look_up(base_model: str, revision: str | None, timeout_s: float, rules: AdmissionRules = NO_RULES) -> HubModel:
    """Ask the hub for a model.

    Args:
        base_model: Hub id.
        revision: Branch, tag or commit; None is the main branch.
        timeout_s: Longest wait for each answer.
        rules: Limit the bytes of its files.

    Raises:
        InvalidBaseModelError: It is unknown, gated, too large, or has no weights that are loaded here; the message says
            which.
        UnreachableHubError: The hub isn't to be asked.
        OutOfReachError: It can't be reached, doesn't answer in time, or is overloaded.
        StorageFullError: There is no room for its configuration.
    """
    at = f" at revision '{revision}'" if revision else ""
    try:
        info = huggingface_hub.model_info(base_model, revision=revision, timeout=timeout_s, files_metadata=True)
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
        check_no_adapter(base_model, ADAPTER_FILE in sizes)
        check_config_size(base_model, sizes.get(CONFIG_FILE))
        config_path = Path(
            huggingface_hub.hf_hub_download(base_model, CONFIG_FILE, revision=revision, etag_timeout=timeout_s)
        )
    except hub_errors.GatedRepoError as error:
        raise InvalidBaseModelError(
            f"base model '{base_model}' is gated; accept its licence on the hub and set HF_TOKEN for the service"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise InvalidBaseModelError(
            f"base model '{base_model}' has no revision '{revision}'; give a branch, tag or commit that its page on "
            "the hub lists, or leave it out for the main branch"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise InvalidBaseModelError(
            f"base model '{base_model}' was not found on the hub, or it is private; check the id, "
            "or set HF_TOKEN for the service"
        ) from error
    except hub_errors.RemoteEntryNotFoundError as error:
        raise InvalidBaseModelError(f"'{base_model}' has no config.json{at}, so it is no transformers model") from error
    # Offline mode and missing local entries are an OSError too; no JSON comes from a portal that stands in for the hub.
    except (httpx2.HTTPError, OSError, json.JSONDecodeError) as error:
        raise _translated(base_model, error) from error
    if not sizes.keys() & {_WEIGHTS, _WEIGHTS_INDEX}:
        raise InvalidBaseModelError(
            f"base model '{base_model}' has no safetensors weights{at}; other formats are not loaded, since they can "
            "run code"
        )
    # The commit of the configuration that was read: a branch may have moved between the two questions.
    config = read_config(base_model, config_path)
    size_bytes = _loaded_bytes(sizes)
    rules.check_size(base_model, size_bytes)
    return HubModel(commit_of(config_path.parent) or info.sha, config, size_bytes)


def _loaded_bytes(sizes: Mapping[str, int | None]) -> int | None:
    """Bytes of the files that are downloaded of a model; None where one's aren't known."""
    loaded = [sizes[name] for name in filter_repo_objects(sizes, allow_patterns=SNAPSHOT_PATTERNS)]
    known = [size for size in loaded if size is not None]
    return sum(known) if len(known) == len(loaded) else None


def check_room(base_model: str, size_bytes: int | None) -> None:
    """Check that this node's disk has room for a model, less what an earlier download has left of it.

    Raises:
        StorageFullError: It hasn't.
    """
    if size_bytes is None:
        return
    cache = Path(constants.HF_HUB_CACHE)
    blobs = cache / repo_folder_name(repo_id=base_model, repo_type="model") / "blobs"
    present_bytes = sum(path.stat().st_size for path in blobs.glob("*") if path.is_file())
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free_bytes = shutil.disk_usage(existing).free
    if size_bytes - present_bytes > free_bytes:
        raise StorageFullError(
            f"base model '{base_model}' has {size_bytes / 1e9:.1f} GB, and the node that needs it has "
            f"{free_bytes / 1e9:.1f} GB left for base models; free some, or set HF_HOME to a larger disk"
        )
