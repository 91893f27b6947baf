"""Two processes that exchange gradients, against one: plainly, and with the base model shared out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sienn_ray.training.config import TrainingConfig
from tests.fakes_training import FakeWorker
from tests.unit.training.training import Trainee, config_of

# A step of 3 rows gives one worker 2 and the other 1; the last one of 12 rows in steps of 5 has 2.
CONFIGS = {
    "even": config_of(batch_size=4),
    "uneven": config_of(batch_size=3),
    "accumulated": config_of(batch_size=2, gradient_accumulation_steps=2),
    "few": config_of(batch_size=5, eval_steps=1),
    "sharded": config_of(batch_size=3, sharding="always"),
}


def _one_of_two(rank: int, folder: str, runs: dict[str, TrainingConfig]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{next(iter(runs))}.rendezvous", rank=rank, world_size=2)
    for checkpoints, config in runs.items():
        run = Trainee(Path(folder), Path(checkpoints), config)
        run.train(worker=FakeWorker(Path(checkpoints), rank=rank, world_size=2))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pairs(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Trainee, Trainee]]:
    """Each run by one worker and by two."""
    folder = tmp_path_factory.mktemp("workers")
    runs = {str(folder / f"two-{name}"): config for name, config in CONFIGS.items()}
    for checkpoints in runs:
        Path(checkpoints).mkdir()
    mp.spawn(_one_of_two, (str(tiny_model_folder), runs), nprocs=2)  # type: ignore[no-untyped-call]
    found = {}
    for name, config in CONFIGS.items():
        alone = Trainee(tiny_model_folder, folder / f"one-{name}", config)
        alone.train()
        found[name] = (alone, Trainee(tiny_model_folder, folder / f"two-{name}", config))
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_two_workers_have_the_loss_curve_of_one(pairs: dict[str, tuple[Trainee, Trainee]], name: str) -> None:
    """To 1e-5 of each loss, and the adapter to 1e-3: the same rows in each step, summed in another order."""
    alone, together = pairs[name]
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)
    torch.testing.assert_close(together.weights, alone.weights, rtol=1e-3, atol=2e-6)
    assert together.state.tokens_done == alone.state.tokens_done
    assert [entry.step for entry in together.state.history] == [entry.step for entry in alone.state.history]


def _resume_of_two(rank: int, folder: str, checkpoints: str, config: TrainingConfig) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{checkpoints}.rendezvous", rank=rank, world_size=2)
    run = Trainee(Path(folder), Path(checkpoints), config)
    run.train(worker=FakeWorker(Path(checkpoints), rank=rank, world_size=2))
    dist.destroy_process_group()


@pytest.mark.parametrize("sharding", ["never", "always"])
def test_a_run_of_one_worker_goes_on_with_two(
    tiny_model_folder: Path, tmp_path: Path, pairs: dict[str, tuple[Trainee, Trainee]], sharding: str
) -> None:
    """And the other way round: a checkpoint knows nothing of how many workers wrote it."""
    alone, together = pairs["sharded" if sharding == "always" else "uneven"]
    config = together.config
    grown, shrunk = tmp_path / "grown", tmp_path / "shrunk"
    for target, source in ((grown, alone), (shrunk, together)):
        target.mkdir()
        shutil.copytree(source.checkpoints / "1", target / "1")
    mp.spawn(_resume_of_two, (str(tiny_model_folder), str(grown), config), nprocs=2)  # type: ignore[no-untyped-call]
    Trainee(tiny_model_folder, shrunk, config).train()
    for folder in (grown, shrunk):
        resumed = Trainee(tiny_model_folder, folder, config)
        assert resumed.losses == pytest.approx(alone.losses, rel=1e-5)
        torch.testing.assert_close(resumed.weights, alone.weights, rtol=1e-3, atol=2e-6)
