"""The engine on the device gives the logits that transformers and PEFT give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks import Check, Figure, Place

if TYPE_CHECKING:
    import torch

MODEL_ID = "benchmarks/small"
CACHE_BYTES = 64 << 20
# Kinds of adapters by name: options of PEFT's `LoraConfig`.
ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True, "r": 4},
    "DoRA": {"use_dora": True},
    "rank pattern": {"rank_pattern": {"q_proj": 3, "down_proj": 12}, "alpha_pattern": {"q_proj": 5}},
}
# Differences of logits over their range.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.05}


def mixed_adapters(precision: str, kind: str, place: Place) -> Iterator[Figure]:
    """Compare a batch of requests, each with another kind of adapter or none, with PEFT: prefill, then decoding."""
    import torch
    from models import exact_products, small_model

    dtype = getattr(torch, precision)
    folders = {name: saved_adapter(name, kind, place) for name in ADAPTERS}
    prompts = _prompts(len(folders) + 1)
    with exact_products():
        wanted = [_by_peft(small_model(kind, place.device, dtype), folders.get(name), tokens) for name, tokens in
                  zip([None, *folders], prompts, strict=True)]  # fmt: skip
        found = _by_engine(small_model(kind, place.device, dtype), folders, prompts)
    for number, name in enumerate(["no adapter", *folders]):
        worst = max(
            float((mine - theirs).abs().max() / (theirs.max() - theirs.min()))
            for mine, theirs in zip(found[number], wanted[number], strict=True)
        )
        yield Figure(f"{kind}: {name}, largest difference over the range", worst, at_most=TOLERANCES[precision])


def _prompts(num: int) -> list[list[int]]:
    """Prompts, each with two more tokens that are decoded one by one; lengths on both sides of a block."""
    return [
        [(7 * index * (number + 2) + number) % 290 + 3 for index in range(9 + 17 * number)] for number in range(num)
    ]


def saved_adapter(name: str, kind: str, place: Place) -> Path:
    """Write an adapter of a kind, with weights that matter, as PEFT does; written at the first call."""
    import torch
    from models import small_model
    from peft import LoraConfig, get_peft_model

    folder = place.scratch / "adapters" / kind.replace(" ", "-") / name.replace(" ", "-")
    if folder.is_dir():
        return folder
    options = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | ADAPTERS[name]
    model = get_peft_model(small_model(kind, "cpu"), LoraConfig(**options))
    model.peft_config["default"].base_model_name_or_path = MODEL_ID
    chance = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            if "lora_B" in part:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.05)
            elif "magnitude" in part:
                parameter.mul_(1.0 + 0.2 * torch.rand(parameter.shape, generator=chance))
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def _by_peft(model: Any, folder: Path | None, tokens: list[int]) -> list[torch.Tensor]:
    """Logits behind the prompt and behind each of its last two tokens."""
    import torch
    from peft import PeftModel

    if folder is not None:
        model = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    ids = torch.tensor([tokens], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, -3:].float().cpu()
    return list(logits)


def _by_engine(model: Any, folders: dict[str, Path], prompts: list[list[int]]) -> list[list[torch.Tensor]]:
    """The same from the engine: prompts in two chunks, all requests in one batch."""
    from serving_runs import BLOCK_TOKENS, runner_of

    from sienn_ray.inference.model.lora_weights import read_lora
    from sienn_ray.inference.model.runner import StepRow

    runner = runner_of(model, CACHE_BYTES)
    adapters = {name: read_lora(folder, MODEL_ID, runner.lora.layers, runner.dtype) for name, folder in folders.items()}
    names = [None, *folders]
    num_blocks = -(-max(map(len, prompts)) // BLOCK_TOKENS)
    # Others' blocks lie between, so that a request is in several places.
    blocks = [[number + len(prompts) * index for index in range(num_blocks)] for number in range(len(prompts))]

    def step(ends: list[int], starts: list[int], *, wants_logits: bool) -> Any:
        parts = zip(prompts, starts, ends, blocks, names, strict=True)
        rows = [StepRow(ids[:end], start, own, name, wants_logits) for ids, start, end, own, name in parts]
        return runner.step(rows, adapters)

    ends = [len(tokens) - 2 for tokens in prompts]
    step([end // 2 for end in ends], [0] * len(prompts), wants_logits=False)
    found = [step(ends, [end // 2 for end in ends], wants_logits=True)]
    for more in (1, 2):
        found.append(step([end + more for end in ends], [end + more - 1 for end in ends], wants_logits=True))
    return [[logits[number].float().cpu() for logits in found] for number in range(len(prompts))]


def _in(precision: str) -> Any:
    def check(place: Place) -> Iterator[Figure]:
        from models import SMALL

        for kind in SMALL:
            yield from mixed_adapters(precision, kind, place)

    return check


CHECKS = (
    Check("engine/logits in float32", _in("float32"), 60.0),
    Check("engine/logits in bfloat16", _in("bfloat16"), 60.0),
)
