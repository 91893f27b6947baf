"""What a process that computes keeps between its steps."""

from __future__ import annotations

import subprocess
import sys

# Asks for one shape, for the same again, for a hundred others, and for the first once more.
_PROGRAM = """
import torch
from sienn_ray.base_model import keep_few_primitives

keep_few_primitives()
weight = torch.ones(16, 16, 3, 3)
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION):
    for width in [1000, 1000, *range(100, 200), 1000]:
        torch.nn.functional.conv2d(torch.ones(1, 16, 32, width), weight)
"""


def test_what_is_compiled_for_a_shape_is_kept_for_the_next_layer_and_not_for_ever() -> None:
    result = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=120)

    made = [line for line in result.stdout.splitlines() if "create:cache_miss" in line and "iw1000" in line]
    assert len(made) == 2, result.stdout[-2000:]
