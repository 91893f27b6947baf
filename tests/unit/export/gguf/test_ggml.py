from __future__ import annotations

import pytest

from tests.support.computing import NEEDS_CPUS, NUM_THREADS, seen

pytestmark = pytest.mark.alone


@NEEDS_CPUS
def test_workers_of_the_computing_thread_spin_while_others_quantize() -> None:
    (setup,) = seen(f"""
from gguf import GGMLQuantizationType
from sienn_ray.compute_threads import compute_here
from sienn_ray.export.gguf.ggml import quantized

compute_here({NUM_THREADS})
# Pieces so large that each would be made float32 by several CPUs, were it not in a thread that computes alone.
pieces = quantized(torch.ones((8192, 512), dtype=torch.bfloat16), GGMLQuantizationType.Q8_0)
next(pieces)
show(observe())
""")
    assert setup["is_compute_thread"]
    assert setup["num_threads"] == NUM_THREADS
    assert not setup["is_waking_workers"]
