"""Computes the statistics of datasets in Ray tasks, so that tokenizers stay out of the ingress."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from deployments.task_failures import task_failure
from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.errors import CapacityError, SiennError, first_line
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

# A dataset of gigabytes takes this long on one core; what takes longer never ends.
_MAX_RUN_S = 3 * 3600.0


class RayStatistics:
    """Runs each computation as one Ray task, which is the driver of Ray Data's own tasks.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.without_secrets()

    async def compute(self, request: StatisticsRequest) -> DatasetStatistics:
        """Compute the statistics and keep them in storage.

        Raises:
            SiennError: What the task raised, or why it didn't end.
        """
        # No CPU is reserved: fine-tunes may hold all of them for hours.
        result = _task().options(name=f"statistics of dataset {request.dataset_id}").remote(request, self._settings)
        try:
            async with asyncio.timeout(_MAX_RUN_S):
                return DatasetStatistics.model_validate(await result)
        except TimeoutError:
            ray.cancel(result, force=True)
            raise SiennError(
                f"the statistics of dataset {request.dataset_id} took longer than {_MAX_RUN_S / 3600:.0f} h; "
                "split the dataset"
            ) from None
        except RayTaskError as error:
            raise task_failure(error, f"the statistics of dataset {request.dataset_id} couldn't be computed") from None
        except RayError as error:
            raise CapacityError(
                f"the computation of the statistics was lost ({type(error).__name__}: {first_line(error)}); try again"
            ) from error


@functools.cache
def _task() -> Any:
    """The task of all computations: Ray keeps each function that is decorated for as long as the cluster lives."""
    return ray.remote(num_cpus=0, max_retries=1)(compute)


def compute(request: StatisticsRequest, settings: Settings) -> DatasetStatistics:
    """Run the computation; the body of the Ray task.

    Raises:
        SiennError: The base model can't be had, or its chat template refuses a row.
    """
    from sienn_ray.base_model import load_tokenizer, tokenizer_folder
    from sienn_ray.datasets.statistics import compute_statistics

    storage = Storage(settings.storage_url, settings.outage_patience_s)
    tokenizer = load_tokenizer(tokenizer_folder(request.base_model, settings, request.revision))
    statistics = compute_statistics(storage, request, tokenizer)
    storage.write_bytes(request.key, statistics.model_dump_json().encode())
    if not storage.exists(dataset_keys.file_key(request.dataset_id)):  # the dataset was deleted meanwhile
        storage.delete(dataset_keys.folder_key(request.dataset_id))
    return statistics
