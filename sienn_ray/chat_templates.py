"""Limits on chat templates, which are programs of strangers: the sandbox doesn't keep them from running for ever."""

from __future__ import annotations

import functools
import json
import logging
import subprocess  # nosec B404 # no shell, and no words of users
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sienn_ray import template_probe
from sienn_ray.errors import InvalidBaseModelError
from sienn_ray.hub import model_id_of
from sienn_ray.template_probe import MAX_CPU_S, MAX_MEMORY_BYTES, TOO_MUCH
from sienn_ray.time_limit import TimeLimitError, cpu_limit

logger = logging.getLogger(__name__)

# CPU time is what is limited; on a busy machine, a process may wait long for its own.
_MAX_WAIT_S = 300.0
_MEASURED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def check_chat_template(tokenizer: Any) -> None:
    """Render a tokenizer's chat template for a few conversations in a process with limits, once for each template.

    Raises:
        InvalidBaseModelError: It takes too much CPU time or memory.
    """
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, Mapping) else [template]
    tokens = {name: str(getattr(tokenizer, name, None) or "") for name in _MEASURED_TOKENS}
    for text in filter(None, texts):
        if not _is_bounded(str(text), json.dumps(tokens)):
            raise InvalidBaseModelError(
                f"the chat template of {name_of(tokenizer)} takes more than {MAX_CPU_S} s of CPU time, "
                f"{MAX_MEMORY_BYTES // 1024**3} GiB of memory or a million characters for a short conversation, so it "
                "isn't rendered; choose another base model"
            )


@functools.lru_cache(maxsize=64)
def _is_bounded(template: str, tokens: str) -> bool:
    program = [sys.executable, "-P", template_probe.__file__]
    asked = json.dumps({"template": template, "tokens": json.loads(tokens)})
    try:
        ended = subprocess.run(  # nosec B603 # no shell, and no words of users
            program, input=asked.encode(), capture_output=True, timeout=_MAX_WAIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if ended.returncode not in {0, TOO_MUCH} and ended.returncode > 0:
        logger.warning("a chat template couldn't be tried: %s", ended.stderr.decode(errors="replace")[-500:])
    # A negative one is the signal that ended it: that of the limit of its CPU time, or of memory.
    return ended.returncode >= 0 and ended.returncode != TOO_MUCH


@functools.lru_cache(maxsize=64)
def variables_of(chat_template: str) -> frozenset[str] | None:
    """Return the names that a template reads and doesn't set itself, or None where it can't be compiled."""
    from jinja2 import TemplateSyntaxError, meta

    try:
        return frozenset(meta.find_undeclared_variables(template_probe.environment().parse(chat_template)))
    except (TemplateSyntaxError, RecursionError):
        return None


@contextmanager
def limited_rendering(tokenizer: Any) -> Iterator[None]:
    """Bound the CPU time of one rendering in this thread: a template may loop for some conversations only.

    Raises:
        InvalidBaseModelError: It takes too long.
    """
    try:
        with cpu_limit(MAX_CPU_S):
            yield
    except TimeLimitError as error:
        raise InvalidBaseModelError(
            f"the chat template of {name_of(tokenizer)} took more than {MAX_CPU_S} s for one conversation and was "
            "ended; choose another base model"
        ) from error


def name_of(tokenizer: Any) -> str:
    """Return a tokenizer's base model in words, as far as the folder that it was loaded from says which it is."""
    base_model = model_id_of(Path(str(getattr(tokenizer, "name_or_path", ""))))
    return f"base model '{base_model}'" if base_model else "the base model"
