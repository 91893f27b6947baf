"""Each case is a process of its own: what OpenMP runs in is settled for a process once and for all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sienn_ray.compute_threads import ComputeThread, SpinControl, compute_alone, cpu_wait_s, observe
from tests.support.computing import NEEDS_CPUS, NUM_THREADS, seen

pytestmark = pytest.mark.alone


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


class Machine:
    """A clock, and how long the thread has waited for a CPU."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waited_s: float | None = 5.0
        self.control = SpinControl(lambda: self.waited_s, lambda: self.now_s)
        self.control.look()

    def go_on(self, seconds: float, waited_s: float) -> bool:
        """Let some time pass, of which the thread waits a part; gives whether workers sleep then."""
        self.now_s += seconds
        if self.waited_s is not None:
            self.waited_s += waited_s
        self.control.look()
        return self.control.is_sleeping


@pytest.fixture
def machine() -> Iterator[Machine]:
    before = torch.get_num_threads()
    machine = Machine()
    yield machine
    machine.control.end()
    torch.set_num_threads(before)


class TestSpinControl:
    def test_workers_sleep_while_others_want_the_cpus(self, machine: Machine) -> None:
        assert not machine.go_on(2.0, 0.1)
        assert machine.go_on(2.0, 1.0)
        assert machine.go_on(2.0, 0.3)  # between the two limits it stays as it is
        assert not machine.go_on(2.0, 0.1)
        assert not machine.go_on(2.0, 0.3)

    def test_a_moment_says_nothing(self, machine: Machine) -> None:
        assert not machine.go_on(0.2, 0.2)
        assert not machine.go_on(1.8, 0.0)

    def test_nothing_is_done_where_the_kernel_does_not_count(self, machine: Machine) -> None:
        machine.waited_s = None
        assert not machine.go_on(2.0, 2.0)

    def test_the_kernel_counts_here(self) -> None:
        waited_s = cpu_wait_s()
        assert waited_s is not None
        assert waited_s >= 0.0

    @NEEDS_CPUS
    def test_workers_really_sleep_and_spin_again(self) -> None:
        setups = seen("""
import os
from sienn_ray.compute_threads import SpinControl, compute_here

compute_here(len(os.sched_getaffinity(0)))
moments = iter([(0.0, 0.0), (2.0, 1.0), (4.0, 1.0)])
now = None
control = SpinControl(lambda: now[1], lambda: now[0])
for now in moments:
    control.look()
    show(observe())
""")
        assert [setup["is_waking_workers"] for setup in setups] == [False, True, False]
        assert len({setup["num_threads"] for setup in setups}) == 1
