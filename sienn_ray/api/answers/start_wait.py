"""The time that a caller waits for an engine's start: `Prefer: wait=SECONDS` (RFC 7240, section 4.3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header

from sienn_ray.api.deps import Backends, BackendsDep, Engines
from sienn_ray.errors import InvalidInputError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.jobs.ids import shown

_MAX_DIGITS = 6

Prefer = Annotated[
    str | None,
    Header(
        description="`wait=SECONDS`: how long to wait where the base model has to be loaded first; then, with `wait=0` "
        "after a second, the answer is a 503 with `Retry-After`. Without it, a request waits.",
        examples=["wait=10"],
    ),
]


@dataclass(frozen=True)
class EnginesWithin:
    """Engines for a caller who waits only so long for one to start.

    Args:
        engines: Who answers.
        wait_s: Seconds; None is as long as the settings allow.
    """

    engines: Engines
    wait_s: float | None

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """See `Engines.generate`."""
        return await self.engines.generate(base_model, request, self._shorter(start_wait_s))

    def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """See `Engines.stream`."""
        return self.engines.stream(base_model, request, self._shorter(start_wait_s))

    def _shorter(self, start_wait_s: float | None) -> float | None:
        given = [wait_s for wait_s in (start_wait_s, self.wait_s) if wait_s is not None]
        return min(given, default=None)


def wait_of(prefer: str) -> float | None:
    """The first `wait` among the preferences of a request, in seconds; other preferences are not ours.

    Raises:
        InvalidInputError: It isn't a whole number of seconds.

    Example:
        >>> wait_of("respond-async, wait=30")
        30.0
    """
    for preference in map(str.strip, prefer.split(",")):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = value.strip().strip('"')
            if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= _MAX_DIGITS):
                raise InvalidInputError(
                    f"Prefer: '{shown(preference)}' has to be a whole number of seconds of up to {_MAX_DIGITS} digits, "
                    "as in `Prefer: wait=30`"
                )
            return float(seconds)
    return None


def _backends_within(backends: BackendsDep, prefer: Prefer = None) -> Backends:
    return replace(backends, engines=EnginesWithin(backends.engines, wait_of(prefer or "")))


# Of a route that asks an engine.
AskingBackendsDep = Annotated[Backends, Depends(_backends_within)]
