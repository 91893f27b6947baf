"""What happens when memory runs out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sienn_ray.errors import FailureReason, MicroBatchMemoryError, TrainingError
from sienn_ray.training import sharding
from sienn_ray.training.loss.batches import Batch
from sienn_ray.training.loss.examples import LossSums
from sienn_ray.training.loss.objectives import CompletionObjective
from sienn_ray.training.micro_batch_limits import MicroBatchLimits
from tests.support.fakes_training import RecordingReporter
from tests.unit.training.training import Trainee, config_of


def limit_rows(
    monkeypatch: pytest.MonkeyPatch, max_rows: int, error: Exception, *, in_training: bool = True
) -> list[int]:
    """Let a forward pass of more rows fail as an allocation does; the sizes that were tried."""
    sums, tried = CompletionObjective.sums, []

    def limited(self: CompletionObjective, batch: Batch) -> LossSums:
        num_rows = len(batch.targets_per_row)
        tried.append(num_rows)
        if torch.is_grad_enabled() == in_training and num_rows > max_rows:
            raise error
        return sums(self, batch)

    monkeypatch.setattr(CompletionObjective, "sums", limited)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
        MemoryError(),
    ],
)
def test_the_micro_batch_is_halved_and_the_step_stays_the_same(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    whole = Trainee(tiny_model_folder, tmp_path / "whole", config_of(batch_size=4), eval_rows=None)
    whole.train()
    tried = limit_rows(monkeypatch, 1, error)
    small = Trainee(tiny_model_folder, tmp_path / "small", config_of(batch_size=4), eval_rows=None)
    small.train()
    # Rows that are collated ahead are divided anew.
    assert tried[:7] == [4, 2, 1, 1, 1, 1, 1]
    torch.testing.assert_close(small.weights, whole.weights, rtol=1e-3, atol=1e-6)
    assert small.losses == pytest.approx(whole.losses, rel=1e-5)
    assert small.state.steps_done == whole.state.steps_done
    # Half the tokens of each micro batch that failed; where the run resumes, it begins with what worked.
    assert small.state.micro_batch_tokens == 8


def test_one_row_that_does_not_fit_ends_the_run(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, 0, MemoryError())
    run = Trainee(tiny_model_folder, tmp_path / "run", eval_rows=None)
    with pytest.raises(TrainingError, match="one row at a time and max_length=512; lower max_length") as error:
        run.train()
    assert error.value.reason is FailureReason.OUT_OF_MEMORY


def test_other_errors_are_not_taken_for_it(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, 0, RuntimeError("shapes don't fit"))
    with pytest.raises(RuntimeError, match="shapes don't fit"):
        Trainee(tiny_model_folder, tmp_path / "run", eval_rows=None).train()


def test_evaluation_is_divided_further_as_well(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainee(tiny_model_folder, tmp_path / "whole", config_of(batch_size=4))
    whole.train()
    tried = limit_rows(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"), in_training=False)
    small = Trainee(tiny_model_folder, tmp_path / "small", config_of(batch_size=4))
    small.train()
    assert tried[:6] == [4, 3, 1, 1, 1, 1]
    assert small.losses == pytest.approx(whole.losses, rel=1e-5)
    assert small.state.micro_batch_tokens is not None


def test_where_the_base_model_is_shared_out_the_next_attempt_has_half_the_tokens(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other workers are in the middle of a pass that they do together, so none can begin it again."""
    whole = Trainee(tiny_model_folder, tmp_path / "whole", config_of(batch_size=4), eval_rows=None)
    whole.train()
    monkeypatch.setattr(sharding, "is_sharded", lambda _: True)
    tried = limit_rows(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"))
    small = Trainee(tiny_model_folder, tmp_path / "small", config_of(batch_size=4), eval_rows=None)
    for num_rows in (4, 2):
        with pytest.raises(MicroBatchMemoryError) as error:
            small.train()
        assert error.value.reason is FailureReason.OUT_OF_MEMORY
        assert tried.pop() == num_rows
        small.known_limits = MicroBatchLimits(max_tokens=error.value.max_tokens)
    small.train()
    assert set(tried) == {1}
    torch.testing.assert_close(small.weights, whole.weights, rtol=1e-3, atol=1e-6)
    assert small.state.micro_batch_tokens == 8


def test_an_update_that_memory_is_too_short_for_is_told_with_fewer_tokens(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=4), eval_rows=None)
    with pytest.raises(MicroBatchMemoryError) as error:
        run.train()
    run.known_limits = MicroBatchLimits(max_tokens=error.value.max_tokens)
    with pytest.raises(MicroBatchMemoryError) as later:
        run.train()
    assert later.value.max_tokens < error.value.max_tokens


def test_a_killed_worker_begins_with_fewer_rows(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=4), known_limits=MicroBatchLimits(2))
    run.train()
    assert run.state.micro_batch_rows == 2
    assert run.state.steps_done == 6


def test_a_checkpoint_of_an_earlier_version_has_rows(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written when two rows at a time had turned out to be what memory suffices for."""
    run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=4), eval_rows=None)
    run.reporter = RecordingReporter(pause_after=1)
    assert run.train().is_paused
    state = json.loads((run.last / "state.json").read_text())
    del state["micro_batch_tokens"]
    (run.last / "state.json").write_text(json.dumps({**state, "micro_batch_rows": 2}))
    run.reporter = RecordingReporter()
    tried = limit_rows(monkeypatch, 2, MemoryError())
    run.train()
    assert set(tried) == {2}
    assert (run.state.steps_done, run.state.micro_batch_rows, run.state.micro_batch_tokens) == (6, 2, None)
