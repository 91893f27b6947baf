"""The adapter that a run starts from: read, checked, and put into the one that is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import ArtifactError, FailureReason, TrainingError
from sienn_ray.storage import Storage
from sienn_ray.training.adapter.start_checks import check_config, check_prompts
from sienn_ray.training.checkpoint_files import ADAPTER_WEIGHTS, START_WEIGHTS
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.temporary_folders import temporary_folder

_MAX_NAMES_SHOWN = 3
StartWeights = dict[str, torch.Tensor]


@contextmanager
def fetched_start(
    storage: Storage, start_key: str, config: TrainingConfig, prompt_format: PromptFormat
) -> Iterator[Path]:
    """Fetch the published adapter that a run starts from, if it goes with the run's configuration.

    Args:
        storage: Where it is.
        start_key: Its storage key.
        config: Of the run.
        prompt_format: The format that the run renders its rows in.

    Raises:
        ArtifactError: It is gone, or altered.
        TrainingError: It is for another base model, counts otherwise, or was trained on other prompts.
    """
    with temporary_folder("adapter") as parent:
        try:
            folder = storage.fetch(start_key, parent)
        except (ArtifactError, FileNotFoundError) as error:
            raise ArtifactError(
                f"the adapter to start from can't be had from {start_key}; it was deleted or altered, so start from "
                f"another one: {error}"
            ) from error
        check_config(folder, config)
        check_prompts(folder, prompt_format)
        yield folder


def read_start(checkpoint: Path | None, fetch: Callable[[], AbstractContextManager[Path]]) -> StartWeights:
    """Read the weights of the start adapter: from a checkpoint, which has them, or else from where it is published.

    Args:
        checkpoint: Folder of the run's last checkpoint.
        fetch: Gives the folder of the published adapter.

    Raises:
        ArtifactError: They can't be read.
    """
    if checkpoint is not None and (checkpoint / START_WEIGHTS).is_file():
        return _read(checkpoint / START_WEIGHTS)
    with fetch() as folder:
        return _read(folder / ADAPTER_WEIGHTS)


def _read(path: Path) -> StartWeights:
    try:
        weights: StartWeights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"the adapter to start from can't be read: {path.name}: {error}") from error
    return {name: value.float() for name, value in weights.items()}


def take_start(adapter: PeftModel, weights: StartWeights) -> None:
    """Have an adapter begin with the weights of another one.

    Raises:
        TrainingError: It has other weights: other target modules, another rank, DoRA or not.
    """
    wanted = get_peft_model_state_dict(adapter, save_embedding_layers=False)
    other = sorted(wanted.keys() ^ weights.keys()) or [
        name for name, value in wanted.items() if value.shape != weights[name].shape
    ]
    if other:
        shown = ", ".join(_shown(name, wanted, weights) for name in other[:_MAX_NAMES_SHOWN])
        raise TrainingError(
            f"the adapter to start from has other weights than this job's ({len(other)} of them: {shown}); leave out "
            "lora_r, target_modules and use_dora, so that they are that adapter's",
            FailureReason.INVALID_HYPERPARAMETERS,
        )
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise TrainingError("the adapter to start from has weights that are no numbers; start from another job")
    set_peft_model_state_dict(adapter, weights)


def _shown(name: str, wanted: StartWeights, weights: StartWeights) -> str:
    shapes = [tuple(one[name].shape) if name in one else "none" for one in (weights, wanted)]
    return f"{name.removeprefix('base_model.model.')} {shapes[0]} there, {shapes[1]} here"
