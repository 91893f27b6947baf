"""Checks of datasets against chat templates, in threads of their own and with a deadline."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sienn_ray.api.deps import Backends
from sienn_ray.template_check.check import find_verdict
from sienn_ray.template_check.verdict import TemplateRequest, TemplateVerdict

logger = logging.getLogger(__name__)

# Each has a process that computes.
_THREADS = 2
# A busy machine may take longer; the job finds it then, in its first phase.
_TIMEOUT_S = 60.0


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "template-check")


async def template_warnings(requests: Sequence[TemplateRequest], backends: Backends) -> list[str]:
    """Refuse datasets with rows that the chat template can't render, and return what to know of the others.

    Raises:
        InvalidDatasetError: There are such rows.
        InvalidInputError: The chat template has no variable of a name that is set.
        InvalidBaseModelError: The chat template takes too much time or memory.
    """
    found = [(request, await template_verdict(request, backends)) for request in requests]
    for request, verdict in found:
        if verdict is not None:
            verdict.check(request)
    return [words for request, verdict in found if verdict is not None for words in verdict.warnings(request)]


async def template_verdict(request: TemplateRequest, backends: Backends) -> TemplateVerdict | None:
    """Find out whether a dataset's rows can be rendered; None where that can't be known now.

    Raises:
        InvalidInputError: The chat template can't be rendered with these variables, or at all.
    """
    question = functools.partial(find_verdict, request, backends.settings, backends.storage, backends.try_template)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await asyncio.get_running_loop().run_in_executor(_threads(), question)
    except TimeoutError:
        logger.warning("dataset %s wasn't checked within %.0f s", request.dataset_id, _TIMEOUT_S)
    except OSError as error:  # a job can wait for storage that is away, and checks itself
        logger.warning("dataset %s couldn't be checked: %s", request.dataset_id, error)
    return None
