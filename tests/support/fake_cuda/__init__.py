"""CUDA code run without a GPU: what it launches, copies and waits for is counted, and nothing is computed.

- `modes`: `fake_cuda`, within which there is a device, and what Python asks of it.
- `device`: what operators ask of the device.
- `counts`: figures of a run.
- `kernels`: how many kernels an operator launches.
- `attention`: the kernels that PyTorch's attention takes on a device.
- `autocast`: automatic casts.
- `runtime`: stand-ins for the functions of `torch.cuda`.
- `modules`: moves of a module's parameters.
- `models`: base models by their configuration.
"""

from __future__ import annotations

from tests.support.fake_cuda.counts import Counts, UploadKind
from tests.support.fake_cuda.device import CUDA
from tests.support.fake_cuda.models import random_model
from tests.support.fake_cuda.modes import fake_cuda

__all__ = ["CUDA", "Counts", "UploadKind", "fake_cuda", "random_model"]
