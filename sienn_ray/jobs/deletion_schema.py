"""Deletions that users have been told of, and whose files may be there still."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import assert_never

from pydantic import BaseModel, ConfigDict

from sienn_ray.datasets import dataset_keys
from sienn_ray.export.options import folder_key, job_key
from sienn_ray.storage_keys import adapter_key, checkpoints_key, logs_key, start_key


class DeletionKind(StrEnum):
    """Kinds of what has files."""

    DATASET = "dataset"
    JOB = "job"
    EXPORT = "export"
    # Of a job that stays.
    CHECKPOINTS = "checkpoints"


class Deletion(BaseModel):
    """A tombstone: the record is gone, or its files alone are unwanted; it stays until the files are gone."""

    model_config = ConfigDict(frozen=True)

    kind: DeletionKind
    id: str
    # Of an export.
    job_id: str | None = None
    created_at: datetime
    num_failures: int = 0
    # When it is tried, or tried again.
    due_at: datetime
    error: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Storage keys of all that belongs to it."""
        match self.kind:
            case DeletionKind.DATASET:
                return (dataset_keys.folder_key(self.id),)
            case DeletionKind.EXPORT:
                return (folder_key(self.job_id or "", self.id),)
            case DeletionKind.JOB:
                return (
                    job_key(self.id),
                    checkpoints_key(self.id),
                    logs_key(self.id),
                    start_key(self.id),
                    adapter_key(self.id),
                )
            case DeletionKind.CHECKPOINTS:
                return (checkpoints_key(self.id),)
            case _:
                assert_never(self.kind)
