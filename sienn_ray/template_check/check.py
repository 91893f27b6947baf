"""Check whether a base model's chat template renders a dataset's rows, in a process with limits; results are kept."""

from __future__ import annotations

import logging
import os
import subprocess  # nosec B404 # no shell, and no words of users
import sys
from collections.abc import Callable
from dataclasses import asdict

from sienn_ray.base_model import tokenizer_folder
from sienn_ray.datasets import dataset_keys
from sienn_ray.errors import InvalidBaseModelError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.template_check import program
from sienn_ray.template_check.base_template import BaseTemplate, folder_template, local_template
from sienn_ray.template_check.program import MAX_CPU_S, MAX_MEMORY_BYTES, TOO_MUCH, Answer, Work
from sienn_ray.template_check.verdict import TemplateRequest, TemplateVerdict

logger = logging.getLogger(__name__)

# CPU time is what is limited; on a busy machine, a process may wait long for its own.
_MAX_WAIT_S = 120.0
_MAX_FAULT_CHARS = 500

TryTemplate = Callable[[Work], Answer | None]


def find_verdict(
    request: TemplateRequest,
    settings: Settings,
    storage: Storage,
    render: TryTemplate,
    template: BaseTemplate | None = None,
) -> TemplateVerdict | None:
    """Find out whether a dataset's rows can be rendered, or read what was found before.

    Args:
        request: Which rows, and what with.
        settings: Where base models are.
        storage: Where the rows are, and the result goes.
        render: What renders them.
        template: The base model's; by default that of the model on this machine.

    Returns:
        None where the base model isn't here, or it can't be found out.

    Raises:
        InvalidInputError: The template has no variable of a name that is set.
        InvalidBaseModelError: It takes too much time or memory.
    """
    if kept := TemplateVerdict.kept(storage, request):
        return kept
    rows_key = dataset_keys.rows_key(request.dataset_id)
    template = template or local_template(request.base_model, request.revision, settings)
    if template is None or not storage.exists(rows_key):
        return None
    work = Work(
        **asdict(template),
        base_model=request.base_model,
        row_kind=request.row_kind,
        chat_template_kwargs=request.options.variables.values,
        storage_url=settings.storage_url,
        rows_key=rows_key,
        num_rows=request.num_rows,
    )
    answer = render(work)
    verdict = None if answer is None else answer.checked()
    if verdict is not None:
        storage.write_bytes(request.key, verdict.model_dump_json().encode())
    return verdict


def verdict_of(request: TemplateRequest, settings: Settings, storage: Storage) -> TemplateVerdict:
    """Find the same for a job that runs: the tokenizer of a base model that isn't here is downloaded first.

    Returns:
        A verdict on no rows where it can't be found out; what can't be rendered is told once it is read, then.

    Raises:
        SiennError: The base model can't be had, or has no such variables.
    """
    found = find_verdict(request, settings, storage, render_in_process)
    if found is None and local_template(request.base_model, request.revision, settings) is None:
        template = folder_template(tokenizer_folder(request.base_model, settings, request.revision))
        if template is not None:
            found = find_verdict(request, settings, storage, render_in_process, template)
    return found or TemplateVerdict(num_rows=0, is_all=False)


def render_in_process(work: Work) -> Answer | None:
    """TryTemplate rows in a process of their own, whose time and memory are limited.

    Returns:
        None where the process couldn't do it for a reason of its own.

    Raises:
        InvalidBaseModelError: The template takes too much time or memory.
    """
    command = [sys.executable, "-P", program.__file__]
    try:
        ended = subprocess.run(  # nosec B603 # no shell, and no words of users
            command,
            input=work.model_dump_json().encode(),
            capture_output=True,
            timeout=_MAX_WAIT_S,
            check=False,
            # Others reserve more addresses at once than the process may have.
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        )
    except subprocess.TimeoutExpired:
        logger.warning("rows of %s weren't rendered within %.0f s", work.rows_key, _MAX_WAIT_S)
        return None
    # A negative one is the signal that ended it: that of the limit of its CPU time, or of memory.
    if ended.returncode == TOO_MUCH or ended.returncode < 0:
        raise InvalidBaseModelError(
            f"the chat template of base model '{work.base_model}' takes more than {MAX_CPU_S} s of CPU time or "
            f"{MAX_MEMORY_BYTES // 1024**3} GiB of memory for these rows; choose another base model"
        )
    if ended.returncode != 0:
        fault = ended.stderr.decode(errors="replace")[-_MAX_FAULT_CHARS:]
        logger.warning("rows of %s couldn't be rendered: %s", work.rows_key, fault)
        return None
    return Answer.model_validate_json(ended.stdout)
