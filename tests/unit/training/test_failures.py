from __future__ import annotations

import pytest
import ray.exceptions
import torch

from sienn_ray.errors import (
    ArtifactError,
    CapacityError,
    FailureReason,
    InvalidBaseModelError,
    InvalidDatasetError,
    SiennError,
    TrainingError,
)
from sienn_ray.settings import Settings
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.failures import explain, reason_of

CONFIG = TrainingConfig(base_model="m", batch_size=8, max_length=1024)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        *((TrainingError("words", reason), reason) for reason in FailureReason),
        (InvalidDatasetError("words", 3), FailureReason.INVALID_DATASET),
        (InvalidBaseModelError("words"), FailureReason.INVALID_BASE_MODEL),
        (ArtifactError("words"), FailureReason.STORAGE),
        (CapacityError("words"), FailureReason.INTERNAL),
    ],
)
def test_every_error_has_a_reason(error: SiennError, reason: FailureReason) -> None:
    assert reason_of(error) is reason


def raised_from(cause: Exception) -> Exception:
    """An error as it comes out of Ray Train: around what really happened."""
    outer = RuntimeError("training failed")
    outer.__cause__ = cause
    return outer


def test_an_error_of_our_own_is_found_behind_others() -> None:
    own = InvalidBaseModelError("gone")
    assert explain(raised_from(raised_from(own)), CONFIG, Settings()) is own


@pytest.mark.parametrize(
    ("cause", "reason", "words"),
    [
        (torch.OutOfMemoryError("CUDA"), FailureReason.OUT_OF_MEMORY, "batch_size=8 and max_length=1024; lower either"),
        (ray.exceptions.RayActorError(), FailureReason.WORKER_LOST, "SIENN_TRAINING_MAX_FAILURES=3"),
        (ZeroDivisionError("by zero"), FailureReason.INTERNAL, "ZeroDivisionError: by zero"),
    ],
)
def test_others_are_put_in_words(cause: Exception, reason: FailureReason, words: str) -> None:
    error = explain(raised_from(cause), CONFIG, Settings())
    assert reason_of(error) is reason
    assert words in error.message
