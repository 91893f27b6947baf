"""A base model with its adapter, made ready for the training loop as the hardware and the options want it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from sienn_ray.compute_threads import observe
from sienn_ray.datasets.schema import RowKind
from sienn_ray.training import sharding
from sienn_ray.training.adapter.adapters import is_fused
from sienn_ray.training.adapter.half_lora import HALF_TYPES
from sienn_ray.training.adapter.start import read_start, take_start
from sienn_ray.training.checkpoint import Restored, Weights, restore
from sienn_ray.training.compilation import compile_layers
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.gradients import GradientStep
from sienn_ray.training.liger import apply_for, use_kernels
from sienn_ray.training.loss.objectives import make_objective
from sienn_ray.training.loss.reference import Reference, start_values
from sienn_ray.training.loss.scoring import Scorer, can_pack, has_plain_head
from sienn_ray.training.loss_scale import LossScale
from sienn_ray.training.methods import method_of
from sienn_ray.training.recomputation import Recomputation, choose_recomputation, recompute
from sienn_ray.training.record import ResolvedFacts
from sienn_ray.training.steps import StepPlan
from sienn_ray.training.worker import Worker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learner:
    """Model, optimizer, objective and rows that the loop works with.

    Args:
        adapter: The base model, adapted in place, in PEFT's wrapper.
        gradients: Computes losses and gradients.
        restored: What the last checkpoint holds, if there is one.
        facts: What was chosen, for the run's record.
        start_weights: Of the adapter that the run starts from, by PEFT's names; None where it starts from the base
            model.
    """

    adapter: PeftModel
    gradients: GradientStep
    restored: Restored | None
    facts: ResolvedFacts
    start_weights: Weights | None = None


def prepare(
    base: PreTrainedModel,
    config: TrainingConfig,
    worker: Worker,
    plan: StepPlan,
    *,
    pad_token_id: int,
    row_kind: RowKind,
    micro_batch_rows: int | None = None,
    fetch_start: Callable[[], AbstractContextManager[Path]] | None = None,
) -> Learner:
    """Adapt a base model and choose how it is computed.

    Args:
        base: The base model as it was loaded, whole or shared out.
        config: Hyperparameters.
        worker: This worker.
        plan: Rows of steps and micro batches.
        pad_token_id: Fills rows up where they can't be packed.
        row_kind: What the rows are.
        micro_batch_rows: Rows of a forward pass, where the plan's turned out to be too many.
        fetch_start: Gives the folder of the adapter that the run starts from; None where it starts from the base model.
            It isn't called where a checkpoint has that adapter's weights.

    Raises:
        TrainingError: The adapter can't sit where it should, or isn't one like that which the run starts from.
    """
    dtype = base.dtype
    is_sharded = sharding.is_sharded(base)
    # What is compiled has its norms fused as it is; quantized and shared models have weights of other kinds.
    is_plain = not (config.torch_compile or config.quantization or is_sharded)
    has_liger = is_plain and use_kernels(base, apply_for(base))
    plain_head = has_plain_head(base)
    is_packed = can_pack(base)
    torch.manual_seed(config.seed)  # the same adapter on every worker
    adapter = sharding.add_adapter_to(base, config)
    start_weights, start = None, None
    with worker.last_checkpoint() as folder:
        if fetch_start is not None:
            start_weights = read_start(folder, fetch_start)
            take_start(adapter, start_weights)
            start = start_values(adapter)
        restored = None if folder is None else restore(folder, adapter)
    micro_batch_rows = (restored.state.micro_batch_rows if restored else None) or micro_batch_rows
    micro_batch_rows = min(micro_batch_rows or plan.micro_batch_rows, plan.micro_batch_rows)

    num_tokens = micro_batch_rows * row_kind.num_sequences * config.max_length
    text_config = base.config.get_text_config()
    level = choose_recomputation(config.gradient_checkpointing, text_config, num_tokens, dtype, worker.device)
    if config.torch_compile and level is Recomputation.SELECTIVE:  # within a layer the compiler chooses what is kept
        level = Recomputation.FULL
    recompute(base, level)
    is_compiled = config.torch_compile and compile_layers(base)
    is_autocast = dtype in HALF_TYPES and not is_fused(config, worker.device)
    scorer = Scorer(
        base,
        pad_token_id,
        worker.device,
        is_packed=is_packed,
        has_plain_head=plain_head,
        autocast=dtype if is_autocast else None,
    )
    objective = make_objective(method_of(row_kind, config.method), scorer, Reference(adapter, start), config)
    if objective.has_reference:
        _switch_dropout_off(base)
    num_examples = plan.max_rows_per_worker * row_kind.num_sequences // objective.rows_per_example
    min_micro_batches = -(-num_examples // micro_batch_rows) if is_sharded else 0
    gradients = GradientStep(
        objective,
        worker,
        config,
        micro_batch_rows=micro_batch_rows,
        min_micro_batches=min_micro_batches,
        is_length_grouped=not is_packed,
        loss_scale=LossScale(dtype, restored.state.loss_scale if restored else None),
    )
    setup = observe()
    facts = ResolvedFacts(
        method=objective.name,
        precision=str(dtype).removeprefix("torch."),
        attention=base.config._attn_implementation,
        quantization=config.quantization,
        num_workers=worker.world_size,
        threads_per_worker=setup.num_threads,
        rows_per_step=config.rows_per_step,
        packed=is_packed,
        device=_name_of(worker.device),
        gradient_checkpointing=level is not Recomputation.NONE,
        recomputation=level,
        compiled=is_compiled,
        liger=has_liger,
        sharded=is_sharded,
        openmp_runtime=setup.openmp,
        openmp_workers_spin=not setup.is_waking_workers,
    )
    logger.info("training with %s", facts.model_dump(mode="json"))
    return Learner(adapter, gradients, restored, facts, start_weights)


def _switch_dropout_off(model: PreTrainedModel) -> None:
    """Have policy and reference differ by the adapter alone; each would drop others of the base model's activations."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_" not in name:
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
