"""Admission of one request's answers: a place and tokens of its caller, from the first to the response's end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sienn_ray.access.claims import ClaimLimits, Refusal
from sienn_ray.access.principals import Principal
from sienn_ray.api.access.claim_gate import ClaimGate, Held
from sienn_ray.api.access.token_estimates import tokens_reserved
from sienn_ray.errors import InvalidInputError, TooManyRequestsError
from sienn_ray.inference.engine import GenerationRequest

_HEADER = "x-ratelimit-{}-tokens"


class Admission:
    """The claims of one request to the API, which may be for several answers.

    It takes one place however many answers it has. Tokens are reserved before, as many as the prompts have about and
    the answers may have, and settled with what the engines counted once the response has ended.

    Args:
        gate: Claims for this replica.
        principal: Whose request it is.
        limits: What its key may have, or its owner, who has come without one.
    """

    def __init__(self, gate: ClaimGate, principal: Principal, limits: ClaimLimits) -> None:
        self._gate = gate
        has_key = principal.key_id is not None
        self._who = "key" if has_key else "owner"
        self._bucket = f"answers {principal.key_id}" if has_key else f"answers owner {principal.owner}"
        self._limits = limits
        self._held: list[Held] = []
        self._num_covered = 0
        self._num_used = 0
        self.headers: dict[str, str] = {}

    async def admit(self, requests: Sequence[GenerationRequest]) -> None:
        """Claim what some answers need, unless that was done.

        Raises:
            InvalidInputError: They need more than the key has in any minute.
            TooManyRequestsError: As many requests are open as may be, or too few tokens are left.
        """
        need = sum(map(tokens_reserved, requests))
        if need <= self._num_covered:
            self._num_covered -= need
            return
        most = self._limits.tokens_per_minute
        if most is not None and need > most:
            raise InvalidInputError(
                f"this request reserves {need} tokens, with its prompts and `max_tokens` for each answer, and the "
                f"{self._who} has {most} in a minute: it can never be answered; ask for fewer tokens or answers"
            )
        held = await self._gate.claim(self._bucket, self._limits, need, num_places=0 if self._held else 1)
        self._note_headers(held)
        if not held.is_granted:
            raise self._refusal(held, need)
        self._held.append(held)

    async def admit_ahead(self, requests: Sequence[GenerationRequest]) -> None:
        """Claim at once what answers need that are asked for after this; raises what `admit` does."""
        await self.admit(requests)
        self._num_covered += sum(map(tokens_reserved, requests))

    def note_tokens(self, number: int) -> None:
        """Note tokens that were used."""
        self._num_used += number

    def end(self) -> None:
        """Give the place back, and the tokens that weren't used."""
        used = self._num_used
        for held in self._held:  # usually one; what it can't have used is another's
            self._gate.end(held, used)
            used = 0

    def _note_headers(self, held: Held) -> None:
        grant = held.grant
        if grant is not None and grant.tokens_left is not None:
            self.headers[_HEADER.format("limit")] = str(self._limits.tokens_per_minute)
            self.headers[_HEADER.format("remaining")] = str(grant.tokens_left)
            self.headers[_HEADER.format("reset")] = f"{math.ceil(grant.reset_s)}s"

    def _refusal(self, held: Held, need: int) -> TooManyRequestsError:
        retry_after_s = held.retry_after_s
        if held.grant is not None and held.grant.refusal is Refusal.OPEN:
            return TooManyRequestsError(
                f"this {self._who} has {held.grant.num_open} requests to models open and may have "
                f"{self._limits.max_open}; wait for one of them to end, or ask for a key with higher limits",
                retry_after_s=retry_after_s,
            )
        left = 0 if held.grant is None else held.grant.tokens_left
        return TooManyRequestsError(
            f"this request reserves {need} tokens and the {self._who} has {left} of its "
            f"{self._limits.tokens_per_minute} in a minute left; come back in {retry_after_s} s, ask for fewer tokens, "
            "or for a key with higher limits",
            retry_after_s=retry_after_s,
        )
