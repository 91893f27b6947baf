"""Checks of the adapter that a run starts from: whether it counts, and reads its rows, as the run will."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.errors import ArtifactError, FailureReason, TrainingError
from sienn_ray.training.checkpoint_files import ADAPTER_CONFIG
from sienn_ray.training.config import TrainingConfig

# What PEFT takes for a field that its file leaves out (peft.LoraConfig, which would bring torch along).
PEFT_DEFAULTS = {
    "base_model_name_or_path": None,
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 8,
    "use_rslora": False,
    "use_dora": False,
}
# Fields by which an adapter counts, or has weights, as no adapter of a run does; empty in a plain one.
NOT_PLAIN = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "bias",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
# Beginnings that leave the base model's weights as they are. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change them, so
# that their adapters go with those changed weights alone.
PLAIN_BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")


def check_config(folder: Path, config: TrainingConfig) -> None:
    """Refuse an adapter that is for another base model, or counts otherwise than the run's.

    Raises:
        ArtifactError: It has no configuration that can be read.
        TrainingError: It doesn't go with the run.
    """
    found = _config_of(folder)
    lora = config.lora
    wanted = {
        "base_model_name_or_path": config.base_model,
        "peft_type": "LORA",
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
    }
    for name, value in wanted.items():
        theirs = found.get(name, PEFT_DEFAULTS[name])
        if theirs != value:
            how = "" if name in found else " (PEFT's default)"
            raise _refusal(
                f"has {name}={theirs}{how}, and this run has {value}; ask for the same, or start from another one"
            )
    for name in NOT_PLAIN:
        if found.get(name) not in (None, False, "none", {}, []):
            raise _refusal(f"has {name}={_shown(found[name])}, and runs here are without; start from another one")
    if (beginning := found.get("init_lora_weights")) not in PLAIN_BEGINNINGS:
        raise _refusal(
            f"has init_lora_weights={_shown(beginning)}, which changes the base model's weights, and this run has them "
            "as they are; convert it to a plain LoRA adapter, or start from another one"
        )


def check_prompts(folder: Path, prompt_format: PromptFormat) -> None:
    """Refuse other prompts than the adapter knows; one that wasn't made here says nothing of them.

    Raises:
        ArtifactError: Its prompt format can't be read.
        TrainingError: It is another one.
    """
    path = folder / PROMPT_FORMAT_FILE
    if not path.is_file():
        return
    other = _differences(PromptFormat.from_json(path.read_text()), prompt_format)
    if other:
        raise _refusal(
            f"was trained on other prompts: {'; '.join(other)}; start from one that was trained on such rows"
        )


def _differences(there: PromptFormat, here: PromptFormat) -> list[str]:
    if there.kind is not here.kind:
        return [f"its prompts are of the kind {there.kind}, and this run's of {here.kind}"]
    if here.kind is PromptKind.TEXT:  # in conversations nothing hangs on how special tokens in text are read
        pairs: dict[str, tuple[str, str]] = {
            "special_tokens": (there.options.special_tokens, here.options.special_tokens)
        }
        other: list[str] = []
    else:
        pairs = {"chat_template_kwargs": (there.options.variables.json, here.options.variables.json)}
        other = ["its chat_template is another one"] if there.chat_template != here.chat_template else []
    return [*other, *(f"it has {name}={one}, and this run {two}" for name, (one, two) in pairs.items() if one != two)]


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ADAPTER_CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the adapter to start from has no {ADAPTER_CONFIG} that can be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"the adapter to start from has no {ADAPTER_CONFIG} that can be read: it is no JSON object")
    return found


def _refusal(words: str) -> TrainingError:
    return TrainingError(f"the adapter to start from {words}", FailureReason.INVALID_HYPERPARAMETERS)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
