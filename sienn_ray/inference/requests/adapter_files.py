"""Files of a published adapter, fetched from storage and checked, the same for every engine.

What an engine makes of the weights is its own: see `read_lora` for ours, which may refuse more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import ArtifactError, EngineError, SiennError
from sienn_ray.local_copies import LocalCopies
from sienn_ray.storage import Storage

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter's files on this machine, each as its manifest has it.

    Args:
        folder: The local folder, in PEFT's format, named after its content.
        prompt_format: The format that the adapter was trained on.
    """

    folder: Path
    prompt_format: PromptFormat

    @property
    def content_hash(self) -> str:
        """Hash of all files, the same for each load."""
        return self.folder.name


def fetch_adapter(storage: Storage, adapter_key: str, copies: LocalCopies) -> AdapterFiles:
    """Copy an adapter to this machine, unless that copy exists.

    Args:
        storage: Where it is published.
        adapter_key: Its storage key.
        copies: The copies on this machine.

    Raises:
        ArtifactError: A file is missing, altered, or can't be read.
    """
    folder = copies.fetch(storage, adapter_key)
    try:
        content = (folder / PROMPT_FORMAT_FILE).read_text()
    except OSError as error:
        raise ArtifactError(f"{adapter_key} has no {PROMPT_FORMAT_FILE}: {error}") from error
    with errors_naming(adapter_key):
        return AdapterFiles(folder, PromptFormat.from_json(content))


@contextmanager
def errors_naming(adapter_key: str) -> Iterator[None]:
    """Put the adapter's storage key in front of the message of an error that is raised inside."""
    try:
        yield
    except SiennError as error:
        raise type(error)(f"{adapter_key}: {error.message}") from error


def read_config(folder: Path, base_model: str) -> dict[str, Any]:
    """Read PEFT's configuration of a LoRA adapter.

    Args:
        folder: The adapter's files.
        base_model: Hub id of the base model that it has to be for.

    Raises:
        ArtifactError: The file is missing or can't be read.
        EngineError: The adapter is of another type, or for another base model.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
        if config["peft_type"] != "LORA":
            raise EngineError(f"the adapter is of type {config['peft_type']}; only LORA can be served")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{CONFIG_FILE} can't be read: {error}") from error
    trained_on = config.get("base_model_name_or_path")
    if trained_on != base_model:
        raise EngineError(f"the adapter was trained on '{trained_on}', this engine holds '{base_model}'")
    return config


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read an adapter's weights, from safetensors only, by PEFT's names.

    Raises:
        ArtifactError: The file is missing or can't be read.
        EngineError: There are no weights, or some aren't finite.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{WEIGHTS_FILE} can't be read; other formats aren't loaded: {error}") from error
    if not tensors:
        raise EngineError("the adapter has no weights")
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            name = key.removeprefix(PREFIX).partition(".lora_")[0]
            raise EngineError(f"the adapter's weights for '{name}' aren't all finite numbers; train it again")
    return tensors
