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
from sienn_ray.training.adapter.adapters import is_fused, trainable
from sienn_ray.training.adapter.half_lora import HALF_TYPES
from sienn_ray.training.adapter.start import read_start, take_start
from sienn_ray.training.checkpoint import Restored, Weights, restore
from sienn_ray.training.collation import Collator
from sienn_ray.training.compilation import compile_layers
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.gradients import GradientStep
from sienn_ray.training.hardware import free_memory_bytes
from sienn_ray.training.liger import apply_for, use_kernels
from sienn_ray.training.loss.objectives import make_objective
from sienn_ray.training.loss.reference import Reference, start_values
from sienn_ray.training.loss.scoring import Scorer, can_pack, has_plain_head
from sienn_ray.training.loss_scale import LossScale
from sienn_ray.training.methods import method_of
from sienn_ray.training.micro_batch_limits import NO_LIMITS, MicroBatchLimits
from sienn_ray.training.recomputation import Recomputation, recompute
from sienn_ray.training.record import ResolvedFacts
from sienn_ray.training.steps import StepPlan
from sienn_ray.training.token_budget import TokenBudget, budget_of_memory, budget_of_rows
from sienn_ray.training.worker import Worker, gathered_counts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learner:
    """Model, optimizer, objective and rows that the loop works with.

    Args:
        adapter: The base model, adapted in place, in PEFT's wrapper.
        gradients: Computes losses and gradients.
        collator: Makes micro batches.
        restored: What the last checkpoint holds, if there is one.
        facts: What was chosen, for the run's record.
        start_weights: Of the adapter that the run starts from, by PEFT's names; None where it starts from the base
            model.
    """

    adapter: PeftModel
    gradients: GradientStep
    collator: Collator
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
    known_limits: MicroBatchLimits = NO_LIMITS,
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
        known_limits: Of a micro batch, where memory turned out not to suffice for more.
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
    max_rows = min(plan.micro_batch_rows, known_limits.max_examples or plan.micro_batch_rows)
    budget = _token_budget(adapter, config, worker, max_rows, row_kind.num_sequences * config.max_length)
    limits = budget.limits.tightened(known_limits)
    recompute(base, budget.recomputation)
    is_compiled = config.torch_compile and compile_layers(base)
    is_autocast = dtype in HALF_TYPES and not is_fused(config, worker.device)
    scorer = Scorer(
        base,
        pad_token_id,
        worker.device,
        is_packed=is_packed,
        has_plain_head=plain_head,
        autocast=dtype if is_autocast else None,
        head_chunk_tokens=budget.head_chunk_tokens,
    )
    objective = make_objective(method_of(row_kind, config.method), scorer, Reference(adapter, start), config)
    if objective.has_reference:
        _switch_dropout_off(base)
    collator = Collator(objective, worker.device, limits, is_packed=is_packed)
    loss_scale = LossScale(dtype)
    if restored is not None:
        loss_scale = LossScale(dtype, restored.state.loss_scale, restored.state.loss_scale_clean_steps)
    gradients = GradientStep(objective, worker, config, collator, is_sharded=is_sharded, loss_scale=loss_scale)
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
        gradient_checkpointing=budget.recomputation is not Recomputation.NONE,
        recomputation=budget.recomputation,
        micro_batch_tokens=limits.max_tokens,
        compiled=is_compiled,
        liger=has_liger,
        sharded=is_sharded,
        openmp_runtime=setup.openmp,
        openmp_workers_spin=not setup.is_waking_workers,
    )
    logger.info("training with %s", facts.model_dump(mode="json"))
    return Learner(adapter, gradients, collator, restored, facts, start_weights)


def _token_budget(
    adapter: PeftModel, config: TrainingConfig, worker: Worker, max_rows: int, row_tokens: int
) -> TokenBudget:
    base = adapter.get_base_model()
    model_config = base.config.get_text_config()
    if worker.device.type != "cuda":
        return budget_of_rows(config, model_config, max_rows=max_rows, row_tokens=row_tokens, dtype=base.dtype)
    # The same on all workers, which have to agree on what they compute twice where the model is shared out.
    free_bytes = min(each for (each,) in gathered_counts([free_memory_bytes(worker.device)], worker.device))
    return budget_of_memory(
        config,
        model_config,
        free_bytes=free_bytes,
        num_learned=sum(parameter.numel() for parameter in trainable(adapter)),
        row_tokens=row_tokens,
        # PEFT's own layers work in float32 beside the products.
        dtype=base.dtype if is_fused(config, worker.device) else torch.float32,
    )


def _switch_dropout_off(model: PreTrainedModel) -> None:
    """Have policy and reference differ by the adapter alone; each would drop others of the base model's activations."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_" not in name:
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):  # BLOOM's is a module by itself
            module.attention_dropout = 0.0


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
