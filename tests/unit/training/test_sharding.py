"""The memory of two workers that share a base model out, while they load it and take their first steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_parameter_registration_hook,
)
from transformers import LlamaConfig, LlamaForCausalLM

from sienn_ray.training.config import LoraSettings
from sienn_ray.training.sharding import load_base_model
from tests.support.fakes_training import FakeRows, FakeWorker
from tests.unit.training.training import TRAIN_ROWS, Trainee, config_of

# 0.19 GB in float32, of which a layer has 5.5 MiB, and embeddings and head 0.25 MiB.
LARGE = LlamaConfig(
    vocab_size=256,
    hidden_size=256,
    intermediate_size=1536,
    num_hidden_layers=32,
    num_attention_heads=8,
    num_key_value_heads=8,
    tie_word_embeddings=True,
)
LORA = LoraSettings(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=["q_proj", "down_proj"])
CONFIG = config_of(batch_size=2, num_epochs=1, sharding="always", lora=LORA)


class _AnonymousMemory:
    """The most memory of its own that this process has had, beyond what it has now; pages of files aren't counted.

    It looks whenever a module gets a parameter, computes or has computed.
    """

    def __init__(self) -> None:
        self._before = self._now()
        self.most_bytes = 0
        register_module_parameter_registration_hook(self._look)
        register_module_forward_pre_hook(self._look)
        register_module_forward_hook(self._look)

    def _look(self, *_: object) -> None:
        self.most_bytes = max(self.most_bytes, self._now() - self._before)

    @staticmethod
    def _now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def _train(rank: int, world_size: int, folders: tuple[str, str], out: str) -> None:
    """Load a tiny model, which brings along what every one needs, then train the large one for two steps."""
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}.rendezvous", rank=rank, world_size=world_size)
    tiny, large = map(Path, folders)
    worker = FakeWorker(Path(out), rank=rank, world_size=world_size)
    load_base_model(tiny, CONFIG, worker, torch.float32)
    memory = _AnonymousMemory()
    run = Trainee(large, Path(out), CONFIG, rows=FakeRows(TRAIN_ROWS[:4]), eval_rows=None)
    run.train(worker=worker)
    Path(f"{out}.{rank}.json").write_text(json.dumps(memory.most_bytes))
    if world_size > 1:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one worker (`one`) and by two (`two`), with what their memory grew by beside it."""
    folder = tmp_path_factory.mktemp("sharding")
    torch.manual_seed(0)
    # In another type than it is trained in: weights are copied then, rather than left in pages of their files.
    LlamaForCausalLM(LARGE).bfloat16().save_pretrained(folder / "large", max_shard_size="20MB")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MALLOC_MMAP_THRESHOLD_", str(1024**2))  # what is freed is given back, see mallopt(3)
        for name, world_size in (("one", 1), ("two", 2)):
            folders = (str(tiny_model_folder), str(folder / "large"))
            (folder / name).mkdir()
            spawn(_train, (world_size, folders, str(folder / name)), nprocs=world_size)  # type: ignore[no-untyped-call]
    return folder


def _most_bytes(folder: Path, name: str, rank: int) -> int:
    return int(json.loads((folder / f"{name}.{rank}.json").read_text()))


def _size_bytes(folder: Path) -> int:
    """Size of the model in the type that it is trained in."""
    return 2 * sum(path.stat().st_size for path in (folder / "large").glob("*.safetensors"))


def test_a_worker_alone_holds_the_whole_model(folder: Path) -> None:
    """Or the measure would tell nothing."""
    assert _most_bytes(folder, "one", 0) >= _size_bytes(folder)


@pytest.mark.parametrize("rank", [0, 1])
def test_no_worker_of_two_ever_holds_the_whole_model(folder: Path, rank: int) -> None:
    assert _most_bytes(folder, "two", rank) < _size_bytes(folder)


def test_they_learn_the_same(folder: Path) -> None:
    alone, together = (Trainee(folder / "large", folder / name, CONFIG) for name in ("one", "two"))
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)
    torch.testing.assert_close(together.weights, alone.weights, rtol=1e-5, atol=1e-5)
