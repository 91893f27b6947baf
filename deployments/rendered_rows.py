"""Renders rows of datasets in Ray tasks, so that tokenizers stay out of the ingress."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from deployments.task_failures import task_failure
from sienn_ray.datasets.rendered_schema import RenderedPage, RenderingRequest
from sienn_ray.errors import CapacityError, first_line
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

# A process that Ray uses again has the tokenizers of its last tasks.
_TOKENIZERS_KEPT = 4


class RayRenderings:
    """Runs each request as one Ray task, which ends when nobody waits for it any more.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.without_secrets()

    async def render(self, request: RenderingRequest) -> RenderedPage:
        """Render some rows.

        Raises:
            SiennError: What the task raised, or why it didn't end.
        """
        result = _task().options(name=f"rows of dataset {request.dataset_id}").remote(request, self._settings)
        is_over = False
        try:
            page: RenderedPage = await result
            is_over = True
        except RayTaskError as error:
            is_over = True
            raise task_failure(error, f"rows of dataset {request.dataset_id} couldn't be rendered") from None
        except RayError as error:
            raise CapacityError(
                f"the rendering of the rows was lost ({type(error).__name__}: {first_line(error)}); try again"
            ) from error
        finally:
            if not is_over:
                ray.cancel(result, force=True)
        return page


@functools.cache
def _task() -> Any:
    """The task of all requests: Ray keeps each function that is decorated for as long as the cluster lives."""
    return ray.remote(num_cpus=0, max_retries=1)(render)


def render(request: RenderingRequest, settings: Settings) -> RenderedPage:
    """Render some rows; the body of the Ray task.

    Raises:
        SiennError: The base model can't be had, or the dataset has no such row.
    """
    from sienn_ray.base_model import tokenizer_folder
    from sienn_ray.datasets.rendered_rows import render_rows

    storage = Storage(settings.storage_url, settings.outage_patience_s)
    return render_rows(storage, request, _tokenizer(tokenizer_folder(request.base_model, settings, request.revision)))


@functools.lru_cache(maxsize=_TOKENIZERS_KEPT)
def _tokenizer(folder: Path) -> Any:
    from sienn_ray.base_model import load_tokenizer

    return load_tokenizer(folder)
