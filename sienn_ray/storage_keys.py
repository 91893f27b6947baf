"""Storage keys of a job's artifacts; those of a dataset are named in `datasets/intake.py`."""

from __future__ import annotations

# Ray Train puts a run's checkpoints into a folder of the run's name here.
CHECKPOINTS_KEY = "checkpoints"
_ADAPTERS_KEY = "adapters"


def adapter_key(job_id: str) -> str:
    """Storage key of a job's published adapter."""
    return f"{_ADAPTERS_KEY}/{job_id}"


def checkpoints_key(job_id: str) -> str:
    """Storage key of the checkpoints that a job's run resumes from."""
    return f"{CHECKPOINTS_KEY}/{job_id}"
