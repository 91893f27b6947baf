"""Storage keys of a job's artifacts and logs; those of a dataset are named in `datasets/dataset_keys.py`."""

from __future__ import annotations

# Ray Train puts a run's checkpoints into a folder of the run's name here.
CHECKPOINTS_KEY = "checkpoints"
ADAPTERS_KEY = "adapters"
LOGS_KEY = "logs"
# Adapters of no job here, which runs were started from by hand.
STARTS_KEY = "starts"
# Names of the job databases whose services use a storage.
OWNERS_KEY = "owners"


def adapter_key(job_id: str) -> str:
    """Storage key of a job's published adapter."""
    return f"{ADAPTERS_KEY}/{job_id}"


def checkpoints_key(job_id: str) -> str:
    """Storage key of the checkpoints that a job's run resumes from."""
    return f"{CHECKPOINTS_KEY}/{job_id}"


def start_key(job_id: str) -> str:
    """Storage key of the adapter that a job starts from, where it is no other job's."""
    return f"{STARTS_KEY}/{job_id}"


def logs_key(job_id: str) -> str:
    """Storage key of the logs of a job's attempts."""
    return f"{LOGS_KEY}/{job_id}"


def attempt_logs_key(job_id: str, attempt: int) -> str:
    """Storage key of the logs of one attempt."""
    return f"{logs_key(job_id)}/{attempt}"


def attempt_log_key(job_id: str, attempt: int) -> str:
    """Storage key of what an attempt's program printed, its workers' lines included."""
    return f"{attempt_logs_key(job_id, attempt)}/program.log"
