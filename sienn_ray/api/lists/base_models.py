"""Questions about base models, in threads of their own and with a deadline: the hub may be slow."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sienn_ray import catalog
from sienn_ray.context_length import check_context
from sienn_ray.errors import CapacityError
from sienn_ray.module_names import check_target_modules
from sienn_ray.settings import Settings

# Several questions to the hub, each with its own deadline.
_TIMEOUT_FACTOR = 3
# A thread outlives the deadline of its question, so these are others than those that all else runs in.
_THREADS = 4

_Answer = TypeVar("_Answer")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "hub")


async def ask_hub(base_model: str, settings: Settings, question: Callable[[], _Answer]) -> _Answer:
    """Answer a question about a base model that may need the hub.

    Raises:
        CapacityError: The hub doesn't answer, or as many others wait for it as there are threads.
        SiennError: What the question raises.
    """
    timeout_s = settings.hub_timeout_s * _TIMEOUT_FACTOR
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().run_in_executor(_threads(), question)
    except TimeoutError:
        raise CapacityError(
            f"the model hub hasn't said within {timeout_s:.0f} s if it has '{base_model}'", retry_after_s=30
        ) from None


async def check_base_model(
    base_model: str,
    settings: Settings,
    revision: str | None = None,
    target_modules: Sequence[str] = (),
    max_length: int = 0,
) -> str | None:
    """Check that a base model is available, and return its commit; None where it has none that is known.

    Args:
        base_model: Hub id.
        settings: See `Settings`.
        revision: Branch, tag or commit; None is what is here, or the main branch.
        target_modules: Ends of module names that it has to have, as far as that is known without loading it.
        max_length: Tokens that it has to read at once, as far as its context is known.

    Raises:
        InvalidBaseModelError: It isn't available.
        InvalidInputError: It has no such modules, or reads fewer tokens.
        CapacityError: The hub doesn't answer.
    """
    rules, timeout_s = settings.admission_rules, settings.hub_timeout_s

    def find() -> str | None:
        found = catalog.resolve(base_model, timeout_s, revision, rules)
        check_context(base_model, found.context_tokens, max_length)
        if target_modules:
            check_target_modules(base_model, found, target_modules)
        return found.revision

    return await ask_hub(base_model, settings, find)
