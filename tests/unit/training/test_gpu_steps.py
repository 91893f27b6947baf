"""A step on a GPU: the host waits for it once, and copies that nobody waits for, however many micro batches it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.training.adapter.adapters import make_optimizer, trainable
from sienn_ray.training.preparation import prepare
from sienn_ray.training.steps import StepPlan
from tests.support.fake_cuda import CUDA, Counts, fake_cuda, random_model
from tests.support.fakes_training import FakeWorker
from tests.unit.training.training import TRAIN_ROWS, config_of, labelled, preferences

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
ROWS: dict[str, Any] = {"sft": TRAIN_ROWS, "dpo": preferences(range(6)), "kto": labelled(range(12))}
KINDS = {"sft": RowKind.CONVERSATION, "dpo": RowKind.PREFERENCE, "kto": RowKind.UNPAIRED_PREFERENCE}


class FakeGpuWorker(FakeWorker):
    def __init__(self, checkpoints: Path) -> None:
        super().__init__(checkpoints)
        self.device = CUDA


def second_step(folder: Path, method: str, **options: Any) -> tuple[Counts, int]:
    """Counts of a run's second step, which has no first times any more, and its micro batches."""
    config = config_of(precision="bfloat16", method=method, **options)
    with fake_cuda() as counts:
        base = random_model(LlamaConfig(**SHAPE), CUDA)
        plan = StepPlan.of(config, 1, 12)
        learner = prepare(base, config, FakeGpuWorker(folder), plan, pad_token_id=0, row_kind=KINDS[method])
        parameters, optimizer = trainable(learner.adapter), make_optimizer(learner.adapter, config)
        learner.adapter.train()
        for _ in range(2):
            step = learner.collator.step([TokenArrays(*row) for row in ROWS[method]])
            counts.clear()
            loss = learner.gradients.accumulate(parameters, step)
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.read(norm)
    return counts, len(step.micro_batches)


@pytest.mark.parametrize("method", ROWS)
def test_the_host_waits_once_a_step(tmp_path: Path, method: str) -> None:
    whole, num_whole = second_step(tmp_path, method)
    parts, num_parts = second_step(tmp_path, method, micro_batch_tokens=30)
    assert (num_whole, num_parts > 3) == (1, True)
    assert (whole.num_waits, parts.num_waits) == (1, 1)
    assert (whole.syncs, parts.syncs) == ({"tolist": 1}, {"tolist": 1})


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_micro_batch_is_one_copy_from_locked_pages(tmp_path: Path, method: str) -> None:
    counts, num_micro_batches = second_step(tmp_path, method, micro_batch_tokens=30)
    assert dict(counts.uploads) == {"pinned": num_micro_batches}
