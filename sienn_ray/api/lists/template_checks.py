"""Checks of datasets against chat templates, in threads of their own and with a deadline."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sienn_ray.api.deps import Backends
from sienn_ray.api.http.render_queries import RenderQuery
from sienn_ray.api.lists.base_models import check_base_model
from sienn_ray.datasets.render_options import RenderOptions, SpecialTokens
from sienn_ray.datasets.schema import RowKind, row_kind
from sienn_ray.jobs.schema import DatasetRecord
from sienn_ray.template_check.check import find_verdict
from sienn_ray.template_check.verdict import TemplateRequest, TemplateVerdict, settled_special_tokens

logger = logging.getLogger(__name__)

# Each has a process that computes.
_THREADS = 2
# A busy machine may take longer; the job finds it then, in its first phase.
_TIMEOUT_S = 60.0


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "template-check")


@dataclass(frozen=True)
class CheckedTemplates:
    """Datasets that the chat template renders.

    Args:
        warnings: What to know of their rows.
        special_tokens: How special tokens in plain text are read; None where that was said, or can't be told yet.
    """

    warnings: list[str]
    special_tokens: SpecialTokens | None


async def check_templates(requests: Sequence[TemplateRequest], backends: Backends) -> CheckedTemplates:
    """Refuse datasets with rows that the chat template can't render.

    Raises:
        InvalidDatasetError: There are such rows, or datasets disagree on how special tokens in text are read.
        InvalidInputError: The chat template has no variable of a name that is set.
        InvalidBaseModelError: The chat template takes too much time or memory.
    """
    found = [(request, await template_verdict(request, backends)) for request in requests]
    for request, verdict in found:
        if verdict is not None:
            verdict.check(request)
    warnings = [words for request, verdict in found if verdict is not None for words in verdict.warnings(request)]
    return CheckedTemplates(warnings, settled_special_tokens(found))


async def settled_options(
    query: RenderQuery, dataset: DatasetRecord, base_model: str, revision: str | None, backends: Backends
) -> RenderOptions:
    """Return options of how a dataset's rows become text, with special tokens in it read as a job reads them.

    Raises:
        InvalidInputError: The chat template can't be rendered with these variables, or at all.
    """
    kind = row_kind(dataset.format)
    if not query.is_auto or kind is not RowKind.TEXT:
        return query.options
    commit = revision or await check_base_model(base_model, backends.settings)
    request = TemplateRequest(dataset.id, dataset.num_rows, kind, base_model, commit, query.options)
    verdict = await template_verdict(request, backends)
    return replace(query.options, special_tokens=settled_special_tokens([(request, verdict)]) or "text")


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
