"""Sizes of a base model's tensors, from metadata alone: weights that aren't on this machine are not downloaded."""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import errors as hub_errors

from sienn_ray import catalog
from sienn_ray.hub import cached_snapshot
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

_UNREADABLE = (hub_errors.SafetensorsParsingError, hub_errors.NotASafetensorsRepoError)
# Values for each byte of a packaged GGUF file, whose smallest type has 4.5 bits a value.
_GGUF_VALUES_PER_BYTE = 2
# Names that configurations have for the same size.
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_INTERMEDIATE = ("intermediate_size", "n_inner", "ffn_dim", "d_ff")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
# An MLP is four times as wide as the model where its configuration doesn't say.
_DEFAULT_WIDENING = 4


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of values in a base model's tensors.

    Args:
        total: In all of them.
        largest: In the largest one.
    """

    total: int
    largest: int

    @classmethod
    def of_shapes(cls, shapes: Iterable[Iterable[int]]) -> ModelSizes | None:
        """Sum up tensors by their shapes; None where there are none."""
        counts = [math.prod(shape) for shape in shapes]
        return cls(sum(counts), max(counts)) if counts else None


def model_sizes(base_model: str, settings: Settings, revision: str | None = None) -> ModelSizes | None:
    """Find a base model's sizes: in its files here, its configuration, or the headers of its files on the hub.

    Args:
        base_model: Hub id.
        settings: Where converted base models are, and how long the hub is waited for.
        revision: Its commit; None is what is here, or the main branch.

    Returns:
        Sizes, those of a configuration or a package rather too large; None where nothing is known of the model now.
    """
    folder = cached_snapshot(base_model, revision) or catalog.converted_folder(base_model, settings.models_dir)
    return (
        _in_files(folder)
        or _in_package(base_model)
        or _in_config(folder / "config.json")
        or _in_config(_cached_config(base_model, revision))
        or _on_hub(base_model, revision, settings.hub_timeout_s)
    )


def _in_files(folder: Path) -> ModelSizes | None:
    from safetensors import SafetensorError, safe_open

    shapes: list[list[int]] = []
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "np") as file:
                shapes += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        logger.warning("%s can't be read: %s", folder, error)
        return None
    return ModelSizes.of_shapes(shapes)


def _in_package(base_model: str) -> ModelSizes | None:
    packaged = catalog.PACKAGED.get(base_model)
    folder = packaged.folder() if packaged else None
    if packaged is None or folder is None:
        return None
    most = _GGUF_VALUES_PER_BYTE * (folder / packaged.gguf_file).stat().st_size
    return ModelSizes(most, most)


def _cached_config(base_model: str, revision: str | None) -> Path | None:
    """The configuration that a check of the base model has left in the hub's cache, without its weights."""
    found = huggingface_hub.try_to_load_from_cache(base_model, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None


def _in_config(path: Path | None) -> ModelSizes | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path is not None else None
    except (OSError, ValueError):
        return None
    return sizes_of_config(config) if isinstance(config, dict) else None


def sizes_of_config(config: Mapping[str, Any]) -> ModelSizes | None:
    """Estimate a decoder's sizes by its configuration, rather too large; None where that doesn't name them.

    Example:
        >>> sizes_of_config({"hidden_size": 10, "vocab_size": 100, "intermediate_size": 40, "num_hidden_layers": 1})
        ModelSizes(total=3600, largest=1000)
    """
    hidden, vocab = _size(config, _HIDDEN), _size(config, ("vocab_size",))
    if not hidden or not vocab:
        return None
    experts = max(1, _size(config, _EXPERTS))
    wide = experts * (_size(config, _INTERMEDIATE) or _DEFAULT_WIDENING * hidden)
    # Four projections of attention, three of a gated MLP.
    layers = _size(config, _LAYERS) * (4 * hidden * hidden + 3 * hidden * wide)
    # Experts may lie in one tensor, with two of their projections.
    largest = hidden * max(vocab, wide if experts == 1 else 2 * wide)
    return ModelSizes(2 * vocab * hidden + layers, largest)


def _size(config: Mapping[str, Any], names: Iterable[str]) -> int:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)


def _on_hub(base_model: str, revision: str | None, timeout_s: float) -> ModelSizes | None:
    try:
        return _hub_sizes(base_model, revision, timeout_s)
    except (httpx2.HTTPError, OSError, ValueError, *_UNREADABLE) as error:
        logger.warning("the hub doesn't tell the sizes of %s: %s: %s", base_model, type(error).__name__, error)
    return None


@functools.lru_cache(maxsize=256)
def _hub_sizes(base_model: str, revision: str | None, timeout_s: float) -> ModelSizes | None:
    found = huggingface_hub.get_safetensors_metadata(base_model, revision=revision, timeout=timeout_s)
    return ModelSizes.of_shapes(
        tensor.shape for file in found.files_metadata.values() for tensor in file.tensors.values()
    )
