"""The losses of TRL's trainers, from the source of the installed package.

TRL's trainers can't be imported without `datasets`, which nothing here needs, and can't be made without data. So the
methods that compute losses are taken out of their classes as they are, and called with a stand-in for `self`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.datasets.tokenization import IGNORE_INDEX

Rows = Sequence[tuple[Sequence[int], Sequence[int]]]
LogitsOf = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _source(module: str) -> ast.Module:
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return ast.parse((Path(spec.origin).parent / module).read_text(encoding="utf-8"))


def _run(nodes: list[ast.stmt], names: dict[str, Any]) -> dict[str, Any]:
    future = ast.parse("from __future__ import annotations").body
    exec(compile(ast.Module([*future, *nodes], type_ignores=[]), "trl", "exec"), names)
    return names


def _class(module: str, name: str, methods: Sequence[str], functions: Sequence[str] = (), **names: Any) -> Any:
    """A class with some of a trainer's methods, and the functions of its module that they call."""
    tree = _source(module)
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    found.bases, found.keywords, found.decorator_list = [], [], []
    found.body = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name in methods]
    assert len(found.body) == len(methods)
    called: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in functions
    ]
    assert len(called) == len(functions)
    known = {"torch": torch, "F": F, "nn": torch.nn, "math": math, "warnings": warnings, **names}
    return _run([*called, found], known)[name]


def _nothing(*_: Any) -> Any:
    return contextlib.nullcontext()


_NO_PEFT: dict[str, Any] = {
    "is_peft_model": lambda _: False,
    "use_adapter": _nothing,
    "disable_gradient_checkpointing": _nothing,
    "is_torch_xla_available": lambda: False,
}
_ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
)


def _padded(rows: Rows) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    found = {name: torch.zeros(len(rows), width, dtype=torch.long) for name in ("ids", "attention", "completion")}
    for number, (ids, labels) in enumerate(rows):
        found["ids"][number, : len(ids)] = torch.tensor(ids)
        found["attention"][number, : len(ids)] = 1
        found["completion"][number, : len(ids)] = torch.tensor([label != IGNORE_INDEX for label in labels]).long()
    return found


def _patched(logits_of: LogitsOf) -> Callable[..., Any]:
    """A model whose forward pass gives what TRL's fused output head does."""

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, **_: Any) -> Any:
        logits = logits_of(input_ids, attention_mask)[:, :-1]
        targets = labels[:, 1:]
        chosen = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        zeros = torch.zeros_like(chosen)
        return SimpleNamespace(
            log_probs=chosen * (targets != IGNORE_INDEX), entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
        )

    forward.training = True  # type: ignore[attr-defined]
    return forward


def _trainer(kind: Any, **fields: Any) -> Any:
    trainer = kind()
    known = {
        "accelerator": _ACCELERATOR,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "aux_loss_enabled": False,
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None),
        "is_encoder_decoder": False,
    }
    for name, value in {**known, **fields}.items():
        setattr(trainer, name, value)
    return trainer


def _last(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(values[-1]) for name, values in metrics.items() if name.startswith(("rewards/", "kl"))}


def dpo_trainer(
    policy: LogitsOf, reference: LogitsOf, chosen: Rows, rejected: Rows, **options: Any
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss and rewards of `DPOTrainer` on one batch; `loss_types` among the options."""
    kind = _class("trainer/dpo_trainer.py", "DPOTrainer", ["_compute_loss"], **_NO_PEFT)
    batch = _padded([*chosen, *rejected])
    model = _patched(policy)
    defaults = {
        "ld_alpha": None,
        "precompute_ref_logps": False,
        "ref_model": _patched(reference),
        "model": model,
        "f_divergence_type": "reverse_kl",
        "loss_weights": [1.0],
        "use_weighting": False,
    }
    trainer = _trainer(kind, **{**defaults, **options})
    inputs = {
        "input_ids": batch["ids"],
        "attention_mask": batch["attention"],
        "completion_mask": batch["completion"],
    }
    loss = trainer._compute_loss(model, inputs, False)
    return loss, _last(trainer._metrics["train"])


def kto_trainer(
    policy: LogitsOf, reference: LogitsOf, rows: Rows, labels: Sequence[bool], mismatched: Rows, **options: Any
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss and rewards of `KTOTrainer` on one batch."""
    kind = _class("trainer/kto_trainer.py", "KTOTrainer", ["_compute_loss", "_compute_kl_logps"], **_NO_PEFT)
    batch, other = _padded(rows), _padded(mismatched)
    model = _patched(policy)
    defaults = {
        "calculate_KL": True,
        "loss_type": "kto",
        "precompute_ref_logps": False,
        "ref_model": _patched(reference),
        "model": model,
    }
    trainer = _trainer(kind, **{**defaults, **options})
    inputs = {
        "input_ids": batch["ids"],
        "attention_mask": batch["attention"],
        "completion_mask": batch["completion"],
        "KL_input_ids": other["ids"],
        "KL_attention_mask": other["attention"],
        "KL_completion_mask": other["completion"],
        "label": torch.tensor(labels),
    }
    loss = trainer._compute_loss(model, inputs, False)
    return loss, _last(trainer._metrics["train"])


def without_reference(
    kind: str, policy: LogitsOf, chosen: Rows, rejected: Rows, **options: Any
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss and rewards of `ORPOTrainer` or `CPOTrainer` on one batch."""
    module = f"experimental/{kind}/{kind}_trainer.py"
    own = {"orpo": ["odds_ratio_loss"], "cpo": ["cpo_loss"]}[kind]
    methods = [*own, "get_batch_logps", "concatenated_inputs", "concatenated_forward", "get_batch_loss_metrics"]
    utils = [
        node
        for node in _source("experimental/utils.py").body
        if isinstance(node, ast.FunctionDef) and node.name == "pad_to_length"
    ]
    names = {
        **_NO_PEFT,
        "pad_to_length": _run(list(utils), {"torch": torch})["pad_to_length"],
        "selective_log_softmax": lambda logits, index: logits.log_softmax(-1).gather(-1, index[..., None])[..., 0],
    }
    functions = ["log1mexp"] if kind == "orpo" else []
    trainer = _trainer(_class(module, f"{kind.upper()}Trainer", methods, functions, **names), **options)
    trainer.padding_value = trainer.pad_token_id = 0
    batch = {}
    for side, rows in (("chosen", chosen), ("rejected", rejected)):
        padded = _padded(rows)
        batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"] = padded["ids"], padded["attention"]
        batch[f"{side}_labels"] = padded["ids"].masked_fill(padded["completion"] == 0, IGNORE_INDEX)

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=policy(input_ids, attention_mask))

    loss, metrics = trainer.get_batch_loss_metrics(forward, batch)
    return loss, {name: float(value) for name, value in metrics.items()}


def loss_of_cpo(**options: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`CPOTrainer.cpo_loss`, of log-probabilities of chosen and rejected answers."""
    kind = _class("experimental/cpo/cpo_trainer.py", "CPOTrainer", ["cpo_loss"], **_NO_PEFT)
    trainer = _trainer(kind, alpha=0.0, **options)
    return lambda chosen, rejected: trainer.cpo_loss(chosen, rejected)[0]
