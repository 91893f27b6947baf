"""Each case is a process of its own: what OpenMP runs in is settled for a process once and for all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sienn_ray.compute_threads import ComputeThread, compute_alone, observe
from tests.computing import NEEDS_CPUS, NUM_THREADS, seen


@NEEDS_CPUS
def test_workers_spin_for_the_thread_that_computes() -> None:
    (setup,) = seen(f"""
engine = ComputeThread("engine", {NUM_THREADS})
loading = ThreadPoolExecutor(2, initializer=compute_alone)
for _ in range(8):
    loading.submit(compute).result()
    engine.run(compute)
show(engine.run(observe))
""")
    assert setup["openmp"] == "libgomp"
    assert setup["num_threads"] == NUM_THREADS
    assert setup["is_compute_thread"]
    assert setup["wait_policy"] is None
    assert setup["spin_count"] is None
    assert not setup["is_waking_workers"]


@NEEDS_CPUS
def test_second_thread_with_workers_is_seen_as_the_trouble_it_is() -> None:
    (setup,) = seen(f"""
torch.set_num_threads({NUM_THREADS})
compute()
engine = ComputeThread("engine", {NUM_THREADS})
show(engine.run(observe))
""")
    assert setup["is_waking_workers"]


def test_runtime_that_takes_the_place_of_pytorchs_is_named(tmp_path: Path) -> None:
    """A copy of PyTorch's own under another name, loaded first, as another vendor's is."""
    own = next((Path(torch.__file__).parents[1]).glob("torch*/**/libgomp*"))
    other = tmp_path / "libother.so.1"
    shutil.copy(own, other)
    (setup,) = seen("show(observe())", LD_PRELOAD=str(other))
    assert setup["openmp"] == "libother"


def test_other_threads_compute_without_workers() -> None:
    (setup,) = seen(f"""
engine = ComputeThread("engine", {NUM_THREADS})
in_thread(lambda: (compute_alone(), show(observe())))
""")
    assert setup["num_threads"] == 1
    assert not setup["is_compute_thread"]


def test_computing_thread_keeps_its_number_of_threads_whatever_others_set() -> None:
    (setup,) = seen(f"""
engine = ComputeThread("engine", {NUM_THREADS})
engine.run(lambda: None)
in_thread(compute_alone)
torch.set_num_threads(1)
show(engine.run(observe))
""")
    assert setup["num_threads"] == NUM_THREADS


class TestComputeThread:
    def test_calls_run_one_after_the_other_in_one_thread(self) -> None:
        thread = ComputeThread("compute", 1)
        setups = [thread.start(observe) for _ in range(2)]
        assert all(setup.result().is_compute_thread for setup in setups)
        thread.end()
        assert not observe().is_compute_thread

    def test_what_a_call_raises_is_raised_where_it_is_waited_for(self) -> None:
        thread = ComputeThread("compute", 1)
        with pytest.raises(ZeroDivisionError):
            thread.run(lambda: 1 // 0)
        assert thread.run(lambda: 2) == 2
        thread.end()


def test_setup_says_what_it_is() -> None:
    compute_alone()
    assert str(observe()).startswith("1 thread(s) of ")
