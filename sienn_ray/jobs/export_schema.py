"""Records of exports, as the tracker keeps them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from sienn_ray.export.options import ExportOptions, folder_key

# Of the work; a run after a lost one may begin anew, so less proves nothing.
_PROGRESS_PERCENT = 10


class ExportStatus(StrEnum):
    """Statuses of an export."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Return whether nothing happens to it any more, unless a user asks for it again."""
        return self in {ExportStatus.COMPLETED, ExportStatus.FAILED, ExportStatus.CANCELLED}


class ExportFailure(StrEnum):
    """Reasons why an export failed, for programs to switch on."""

    INVALID = "invalid"
    STORAGE_FULL = "storage_full"
    OUT_OF_MEMORY = "out_of_memory"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"


class ExportRecord(BaseModel):
    """One export of a job; the same job, format and choices are the same export."""

    model_config = ConfigDict(frozen=True)

    id: str
    job_id: str
    base_model: str
    job_name: str | None = None
    options: ExportOptions
    status: ExportStatus = ExportStatus.PENDING
    progress: int = 0
    message: str = "The export waits for its turn"
    failure_reason: ExportFailure | None = None
    attempt: int = 0
    # Runs lost in a row without progress between them, and the progress that the last of them had come to.
    num_losses: int = 0
    loss_progress: int = 0
    file_name: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def key(self) -> str:
        """Storage key of its folder."""
        return folder_key(self.job_id, self.id)

    @property
    def num_losses_with_one_more(self) -> int:
        """Losses in a row, were its run lost now; the first one after some progress counts as one."""
        has_progressed = self.progress >= self.loss_progress + _PROGRESS_PERCENT
        return 1 if has_progressed else self.num_losses + 1

    def is_running(self, attempt: int) -> bool:
        """Return whether this very attempt is the one that runs."""
        return self.status is ExportStatus.RUNNING and self.attempt == attempt
