"""Load a base model and its tokenizer, by hub id, from where the catalog finds them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from filelock import FileLock

from sienn_ray import catalog
from sienn_ray.catalog import BaseModelSource, PackagedWeights
from sienn_ray.chat_templates import check_chat_template
from sienn_ray.errors import InvalidBaseModelError, OutOfReachError
from sienn_ray.hub import SNAPSHOT_PATTERNS, TOKENIZER_PATTERNS, check_room, has_weights
from sienn_ray.precision import serving_type
from sienn_ray.retries import while_out_of_reach
from sienn_ray.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# More than the shapes that the layers of one step have.
_PRIMITIVES_KEPT = "64"


def local_folder(base_model: str, settings: Settings, revision: str | None = None) -> Path:
    """Bring a base model to this machine and return the folder to load it from.

    Only a folder found here is handed to transformers: given a bare id, it would look in the working directory first.

    Args:
        base_model: Hub id.
        settings: Where converted base models are, and how long the hub is waited for.
        revision: The commit that is wanted, or a branch or tag; None takes what is here, or the main branch.

    Raises:
        InvalidBaseModelError: The id can't be resolved.
        OutOfReachError: The hub was out of reach for longer than the settings allow.
    """
    return _local_folder(base_model, settings, revision, SNAPSHOT_PATTERNS)


def tokenizer_folder(base_model: str, settings: Settings, revision: str | None = None) -> Path:
    """Return the folder of the tokenizer alone: weights that aren't here yet aren't downloaded.

    Raises:
        InvalidBaseModelError: The id can't be resolved.
    """
    return _local_folder(base_model, settings, revision, TOKENIZER_PATTERNS)


def _local_folder(base_model: str, settings: Settings, revision: str | None, patterns: list[str]) -> Path:
    """Find or download a model, through outages of the hub: what asks here has done work that would be lost."""
    return while_out_of_reach(
        lambda: _found_folder(base_model, settings, revision, patterns),
        longest_s=settings.outage_patience_s,
        what="the model hub",
    )


def _found_folder(base_model: str, settings: Settings, revision: str | None, patterns: list[str]) -> Path:
    found = catalog.resolve(base_model, settings.hub_timeout_s, revision, settings.admission_rules)
    match found.source:
        case BaseModelSource.PACKAGE:
            return _converted(base_model, catalog.PACKAGED[base_model], settings.models_dir)
        case BaseModelSource.HUB_CACHE:
            return _snapshot(base_model, found.revision or revision, patterns, is_here=True)
        case BaseModelSource.HUB:
            if patterns is SNAPSHOT_PATTERNS:
                check_room(base_model, found.size_bytes)
            return _snapshot(base_model, found.revision or revision, patterns, is_here=False)
        case _:
            assert_never(found.source)


def _snapshot(base_model: str, revision: str | None, patterns: list[str], *, is_here: bool) -> Path:
    import huggingface_hub

    folder = Path(
        huggingface_hub.snapshot_download(
            base_model, revision=revision, allow_patterns=patterns, local_files_only=is_here
        )
    )
    # While the hub can't be reached, the library gives what an earlier download has left.
    if patterns is SNAPSHOT_PATTERNS and not has_weights(folder):
        raise OutOfReachError(f"base model '{base_model}' is here in part only, and the rest can't be had now")
    return folder


def _converted(base_model: str, packaged: PackagedWeights, models_dir: Path) -> Path:
    """The safetensors copy of a packaged GGUF, made at first use: loading the GGUF takes tens of seconds."""
    target = catalog.converted_folder(base_model, models_dir)
    if target.is_dir():
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            _convert_gguf(base_model, packaged, target)
    return target


def _convert_gguf(base_model: str, packaged: PackagedWeights, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = packaged.folder()
    if folder is None:
        raise InvalidBaseModelError(f"'{base_model}' was uninstalled; add it with `{packaged.install_command}`")
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=packaged.gguf_file, dtype=torch.float32)  # nosec B615 # a local folder
    model.hf_quantizer = None  # the weights are plain float32 now, and save_pretrained refuses a GGUF quantizer
    del model.config.quantization_config
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(folder, gguf_file=packaged.gguf_file).save_pretrained(partial)  # nosec B615 # a local folder
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a local folder; it has a pad token afterwards.

    Raises:
        InvalidBaseModelError: Its chat template takes too long, or too much memory.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(  # nosec B615 # a folder on this machine
        folder, trust_remote_code=False, local_files_only=True
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_chat_template(tokenizer)
    return tokenizer


def load_causal_lm(
    folder: Path, device: torch.device, dtype: torch.dtype | None = None, quantization: str | None = None
) -> PreTrainedModel:
    """Load a causal LM from a local folder; onto a GPU tensor by tensor, so that the host never holds the whole.

    Args:
        folder: What `local_folder` gave.
        device: Where to.
        dtype: Of the weights; None is what such a device serves in, see `serving_type`.
        quantization: `nf4` keeps the weights of linear layers in 4 bits; `dtype` is that of products then.

    Raises:
        InvalidBaseModelError: It can't be quantized here.
    """
    from transformers import AutoModelForCausalLM

    keep_few_primitives()
    chosen = dtype or serving_type(device)
    options = _placement(device) if quantization is None else _quantized(chosen, device)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(  # nosec B615 # a folder on this machine
        folder, dtype=chosen, use_safetensors=True, trust_remote_code=False, local_files_only=True, **options
    )
    if quantization is not None:
        _keep_differentiable(model)
        return model
    return model.to(device)


def _placement(device: torch.device) -> dict[str, Any]:
    """Options that load straight onto a GPU; on a CPU weights stay in the pages of their files where they can."""
    return {"device_map": {"": device}} if device.type == "cuda" else {}


def keep_few_primitives() -> None:
    """Have oneDNN, and PyTorch in front of it, keep what they compiled for the latest shapes only.

    Each keeps 1,024 by default, and every number of tokens asks for some twenty of them, 6 MiB in all: gigabytes, over
    a run whose steps differ in length. Comes too late once a product has been computed.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, _PRIMITIVES_KEPT)


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking weights on a CPU, as it does at the first evaluation on some.

    The repacked weights' product has no gradient of its own, and training would go on with wrong ones.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _quantized(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Options for weights in 4 bits, with the scales quantized too (Dettmers et al. 2023, arXiv:2305.14314)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InvalidBaseModelError("quantization=nf4 needs bitsandbytes; add it with `pip install 'sienn-ray[qlora]'`")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": device}}
