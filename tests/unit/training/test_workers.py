"""Two processes that exchange gradients, against one: plainly, and with the base model shared out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.token_stream import Share, TokenArrays
from sienn_ray.training.config import LoraSettings, TrainingConfig
from tests.support.fakes_training import FakeRows, FakeWorker
from tests.unit.training.training import TRAIN_ROWS, Trainee, config_of, labelled, preferences

# A step of 3 rows gives one worker 2 and the other 1; the last one of 12 rows in steps of 5 has 2.
CONFIGS = {
    "even": config_of(batch_size=4),
    "uneven": config_of(batch_size=3),
    "accumulated": config_of(batch_size=2, gradient_accumulation_steps=2),
    "few": config_of(batch_size=5, eval_steps=1),
    "sharded": config_of(batch_size=3, sharding="always"),
    "dpo": config_of(batch_size=3, method="dpo"),
    "dpo sharded": config_of(batch_size=3, method="dpo", sharding="always"),
    # Their rows make one example each, of which a step has several micro batches.
    "kto": config_of(batch_size=3, method="kto", gradient_accumulation_steps=2),
    "kto sharded": config_of(batch_size=3, method="kto", sharding="always"),
    # Where tokens limit them, workers have other numbers of micro batches, also for KTO's mismatched answers.
    "tokens": config_of(batch_size=3, micro_batch_tokens=12),
    "tokens sharded": config_of(batch_size=3, micro_batch_tokens=12, sharding="always"),
    "kto tokens sharded": config_of(batch_size=3, method="kto", micro_batch_tokens=12, sharding="always"),
    "sharded-several": config_of(batch_size=3, sharding="always"),
    "sharded dora": config_of(
        batch_size=3, sharding="always", lora=LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0, use_dora=True)
    ),
    "sharded recomputing": config_of(batch_size=3, sharding="always", gradient_checkpointing=True),
}


class _SeveralOfSome(FakeRows):
    """Rows of which some make four examples, so that one worker has more of them than the other."""

    def steps(self, share: Share, *, first_step: int, num_steps: int) -> Iterator[tuple[int, list[TokenArrays]]]:
        for step, rows in super().steps(share, first_step=first_step, num_steps=num_steps):
            yield step, [each for row in rows for each in [row] * (4 if row.input_ids[1] % 2 else 1)]


# Those that are also resumed by another number of workers.
RESUMED = ("uneven", "sharded")


def _trainee(model_folder: Path, checkpoints: Path, config: TrainingConfig) -> Trainee:
    """A run over the rows of its name or method; those over preferences start from an adapter."""
    if config.method == "auto":
        several = checkpoints.name.endswith("several")
        return Trainee(
            model_folder, checkpoints, config, rows=_SeveralOfSome(TRAIN_ROWS) if several else FakeRows(TRAIN_ROWS)
        )
    rows = FakeRows(preferences(range(12)), 2) if config.method == "dpo" else FakeRows(labelled(range(12)))
    held_out = FakeRows(preferences(range(20, 23)), 2) if config.method == "dpo" else FakeRows(labelled(range(20, 23)))
    return Trainee(
        model_folder,
        checkpoints,
        config,
        rows=rows,
        eval_rows=held_out,
        row_kind=RowKind.PREFERENCE,
        start=checkpoints.parent / "one-even" / "1",
    )


def _one_of_two(rank: int, folder: str, runs: dict[str, TrainingConfig]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{next(iter(runs))}.rendezvous", rank=rank, world_size=2)
    for checkpoints, config in runs.items():
        run = _trainee(Path(folder), Path(checkpoints), config)
        run.train(worker=FakeWorker(Path(checkpoints), rank=rank, world_size=2))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by one worker (`one-...`), by two (`two-...`), and by two from a checkpoint of one (`grown-...`).

    All that two do is done by the same two processes, whose start takes longer than the runs.
    """
    folder = tmp_path_factory.mktemp("workers")
    for name, config in CONFIGS.items():
        _trainee(tiny_model_folder, folder / f"one-{name}", config).train()
    runs = {}
    for name, config in CONFIGS.items():
        (folder / f"two-{name}").mkdir()
        runs[str(folder / f"two-{name}")] = config
    for name in RESUMED:
        shutil.copytree(folder / f"one-{name}" / "1", folder / f"grown-{name}" / "1")
        runs[str(folder / f"grown-{name}")] = CONFIGS[name]
    spawn(_one_of_two, (str(tiny_model_folder), runs), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture
def trainee(folder: Path, tiny_model_folder: Path) -> Callable[[str, str], Trainee]:
    """Gives a run by how many had it and by its name."""
    return lambda workers, name: _trainee(tiny_model_folder, folder / f"{workers}-{name}", CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_two_workers_have_the_loss_curve_of_one(trainee: Callable[[str, str], Trainee], name: str) -> None:
    """To 1e-5 of each loss, and the adapter to 1e-3: the same rows in each step, summed in another order."""
    alone, together = trainee("one", name), trainee("two", name)
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)
    torch.testing.assert_close(together.weights, alone.weights, rtol=1e-3, atol=2e-6)
    assert together.state.tokens_done == alone.state.tokens_done
    assert [entry.step for entry in together.state.history] == [entry.step for entry in alone.state.history]


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_of_one_worker_goes_on_with_two(
    trainee: Callable[[str, str], Trainee], tmp_path: Path, name: str
) -> None:
    """And the other way round: a checkpoint knows nothing of how many workers wrote it."""
    alone, together, grown = trainee("one", name), trainee("two", name), trainee("grown", name)
    shutil.copytree(together.checkpoints / "1", tmp_path / "shrunk" / "1")
    shrunk = Trainee(together.model_folder, tmp_path / "shrunk", together.config)
    shrunk.train()
    for resumed in (grown, shrunk):
        assert resumed.losses == pytest.approx(alone.losses, rel=1e-5)
        torch.testing.assert_close(resumed.weights, alone.weights, rtol=1e-3, atol=2e-6)
