"""Requests for changes in the job database: each is carried out once, and answered alike when it is repeated."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import sqlalchemy as sa
from pydantic import TypeAdapter

from sienn_ray.errors import TooLateError
from sienn_ray.jobs.change_requests import ChangeRequest
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import change_requests

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A caller repeats a request within minutes or never. With many callers, the newest answers stay.
_LIFETIME = timedelta(hours=1)
MAX_ANSWERS = 10_000
# Old answers are looked for at every so many new ones.
_PRUNE_EVERY = 64


class RequestStore:
    """Carries out changes once.

    Args:
        database: Where answers are remembered, by what they changed.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def once(self, request: ChangeRequest, method: str, answer_type: TypeAdapter[T], change: Callable[[], T]) -> T:
        """Carry out a change, or give the answer that it had before. Both are written in one transaction.

        Args:
            request: Its id and its deadline.
            method: What is asked for; a request asks for each thing once.
            answer_type: How the answer is kept as JSON.
            change: Makes the change, in this thread. An error undoes it, and isn't remembered.

        Raises:
            TooLateError: The deadline was over before it was its turn to write. Nothing was changed, and nothing will
                be: any repeat that waits somewhere comes later still.
        """
        with self._database.together() as connection:
            same = (change_requests.c.id == request.id, change_requests.c.method == method)
            known = connection.execute(sa.select(change_requests.c.answer).where(*same)).first()
            if known is not None:
                logger.info("a repeated call of %s gets the first one's answer", method)
                return answer_type.validate_json(json.dumps(known.answer))
            now = self._clock()
            late_s = now.timestamp() - request.deadline
            if late_s > 0:
                logger.warning("a call of %s came %.1f s after its deadline, and isn't carried out", method, late_s)
                raise TooLateError("the job tracker was busy for too long, and nothing was changed; try again")
            answer = change()
            self._remember(connection, request, method, answer_type.dump_python(answer, mode="json"), now)
            return answer

    def _remember(
        self, connection: sa.Connection, request: ChangeRequest, method: str, answer: object, moment: datetime
    ) -> None:
        values = {"id": request.id, "method": method, "answer": answer, "created_at": moment}
        row = connection.execute(sa.insert(change_requests).values(**values)).inserted_primary_key
        seq: int = row[0] if row else 0
        if seq % _PRUNE_EVERY == 0:
            is_old = change_requests.c.created_at < moment - _LIFETIME
            connection.execute(sa.delete(change_requests).where(is_old | (change_requests.c.seq <= seq - MAX_ANSWERS)))
