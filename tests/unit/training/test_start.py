"""What is left out of a run's start, because it takes seconds and is of no use to it."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import subprocess
import sys

import pytest
import ray.train
from ray.train.torch import TorchTrainer

from sienn_ray.training import garbage, process_setup, ray_worker, trainer


def test_garbage_is_looked_for_less_often() -> None:
    before = gc.get_threshold()
    try:
        garbage.collect_rarely()
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_threshold()[1:] == before[1:]
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)


def test_hook_names_the_function() -> None:
    module, _, name = process_setup.HOOK.rpartition(".")
    assert getattr(importlib.import_module(module), name) is process_setup.set_up


def test_noise_of_libraries_stays_out_of_the_log() -> None:
    code = (
        "from sienn_ray.training import process_setup; process_setup.set_up()\n"
        "import logging, warnings; logging.basicConfig(level=logging.INFO)\n"
        "logging.getLogger('alembic.runtime.plugins').info('setup plugin')\n"
        "warnings.warn('`is_gradient_checkpointing` is deprecated', FutureWarning)\n"
        "import tqdm; list(tqdm.tqdm(range(3), desc='Loading weights'))\n"
        "logging.getLogger('sienn_ray').info('loss 0.5')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr.splitlines()) == ("", ["INFO:sienn_ray:loss 0.5"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # it copies itself
def test_no_process_is_started_that_a_run_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    options = {"scaling_config": ray.train.ScalingConfig(num_workers=1), "run_config": ray.train.RunConfig(name="run")}
    everything = names(TorchTrainer(dict, **options))
    left = names(trainer.LeanTrainer(dict, **options))
    # If this fails after an update of Ray, look for what it calls these now.
    assert everything - left == trainer.UNUSED_CALLBACKS
    assert left <= everything
    assert "BackendSetupCallback" in left


def names(of: TorchTrainer) -> set[str]:
    """Of a trainer's callbacks."""
    return {type(callback).__name__ for callback in of._create_default_callbacks()}


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes isn't installed")
@pytest.mark.parametrize("is_left_out", [True, False])
def test_bitsandbytes_is_imported_only_where_it_is_used(is_left_out: bool) -> None:
    code = (
        "import sys; from sienn_ray.training import ray_worker\n"
        f"{'ray_worker.leave_out' if is_left_out else 'str'}('bitsandbytes')\n"
        "import sienn_ray.training.loop; print(sys.modules.get('bitsandbytes') is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == str(not is_left_out)


def test_a_package_that_is_there_already_stays() -> None:
    ray_worker.leave_out("ray")
    assert sys.modules["ray"] is ray
