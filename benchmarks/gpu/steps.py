"""Optimizer steps of the product, one at a time: losses and gradients as its loop has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lone_loop import Worker
from models import TokenRow

from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.training.adapter.adapters import make_optimizer, trainable
from sienn_ray.training.config import MIN_ROW_TOKENS, LoraSettings, TrainingConfig
from sienn_ray.training.preparation import prepare
from sienn_ray.training.steps import StepPlan

LORA = LoraSettings(r=16, lora_alpha=32, lora_dropout=0.0)


def training_config(rows: Sequence[TokenRow], **fields: Any) -> TrainingConfig:
    """Hyperparameters of a run whose steps have all of these rows."""
    options = {
        "base_model": "benchmarks/random",
        "batch_size": len(rows),
        "max_length": max(MIN_ROW_TOKENS, *(len(row.input_ids) for row in rows)),
        "gradient_checkpointing": False,
        "lora": LORA,
    }
    return TrainingConfig(**options | fields)


def row_by_row(rows: Sequence[TokenRow]) -> dict[str, Any]:
    """Hyperparameters that give each row of a step a forward pass of its own."""
    return {"batch_size": 1, "gradient_accumulation_steps": len(rows)} | token_limit(1)


def token_limit(num_tokens: int) -> dict[str, Any]:
    """Hyperparameters that bound the tokens of a forward pass."""
    return {"micro_batch_tokens": num_tokens}


class Stepper:
    """A base model with a fresh adapter, made ready by the product, and its optimizer.

    Args:
        base: The base model, which is adapted in place.
        config: Hyperparameters.
        b_std: Deviation of B, drawn anew and the same on every device; zeros, as a run begins with, give A no gradient.
        row_kind: Of the rows; conversations by default.
    """

    def __init__(
        self, base: Any, config: TrainingConfig, b_std: float | None = None, *, row_kind: RowKind | None = None
    ) -> None:
        self._row_kind = row_kind or RowKind.CONVERSATION
        self.learner = prepare(
            base,
            config,
            Worker(base.device),
            StepPlan.of(config, 1, config.rows_per_step),
            pad_token_id=0,
            row_kind=self._row_kind,
        )
        if b_std is not None:
            _fill_b(self.learner.adapter, b_std)
        self.parameters = trainable(self.learner.adapter)
        self._config = config
        self._optimizer = make_optimizer(self.learner.adapter, config)

    def accumulate(self, rows: Sequence[TokenRow]) -> float:
        """Leave a step's gradients in the parameters; gives the mean loss."""
        # Two rows are a pair of answers, or every other one is a wanted answer, where the loss is over preferences.
        arrays = [TokenArrays(row.input_ids, row.labels, is_desirable=place % 2 == 0) for place, row in enumerate(rows)]
        collated = self.learner.collator.step(arrays)
        loss, _ = self.learner.gradients.accumulate(self.parameters, collated).read(None)
        return loss.mean

    def gradients(self, rows: Sequence[TokenRow]) -> tuple[float, dict[str, torch.Tensor]]:
        """Mean loss, and the gradients by name, on the CPU in float32."""
        loss = self.accumulate(rows)
        found = {
            name: parameter.grad.detach().float().cpu().clone()
            for name, parameter in self.learner.adapter.named_parameters()
            if parameter.grad is not None
        }
        self._optimizer.zero_grad(set_to_none=True)
        return loss, found

    def step(self, rows: Sequence[TokenRow]) -> float:
        """Do one optimizer step; gives its loss."""
        self.learner.adapter.train()
        loss = self.accumulate(rows)
        torch.nn.utils.clip_grad_norm_(self.parameters, self._config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss


def _fill_b(adapter: torch.nn.Module, std: float) -> None:
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * std)
