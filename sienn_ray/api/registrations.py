"""Registration of uploaded datasets with the tracker: record and files come to be, or neither."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from sienn_ray.datasets import dataset_keys
from sienn_ray.errors import CapacityError, RedeployedError, TooLateError
from sienn_ray.jobs.change_requests import CALL_TIMEOUT_S, ChangeRequest, repeating
from sienn_ray.jobs.schema import DatasetRecord
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0


class Registrations:
    """Registers datasets whose files are in storage.

    While the tracker doesn't answer, it isn't known whether a record has been written, or will be. The files stay
    then, marked for the sweep, and once the request's deadline is over the tracker is asked again: what it says then is
    final.

    Args:
        tracker: Keeps the records.
        storage: Has the files.
        forget: Deletes a dataset's files.
        timeout_s: Longest wait for the tracker's first answer.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        tracker: Tracker,
        storage: Storage,
        forget: Callable[[Storage, str], Awaitable[None]],
        timeout_s: float = CALL_TIMEOUT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tracker = tracker
        self._storage = storage
        self._forget = forget
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._open: set[asyncio.Task[None]] = set()

    async def register(self, record: DatasetRecord) -> DatasetRecord:
        """Have the tracker write a dataset's record; its files are deleted when it surely won't.

        Raises:
            CapacityError: The tracker doesn't answer. The files go, or the record comes, a little later.
        """
        request = ChangeRequest.within(self._timeout_s)
        try:
            with repeating(request):
                return await self._tracker.add_dataset(record, self._storage.url)
        except (TooLateError, RedeployedError):
            await self._forget(self._storage, record.id)
            raise
        except CapacityError:
            await self._mark(record.id)
            task = asyncio.create_task(self._settle(request, record))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            raise
        except Exception:
            await self._forget(self._storage, record.id)
            raise

    async def _mark(self, dataset_id: str) -> None:
        try:
            await asyncio.to_thread(self._storage.write_bytes, dataset_keys.unregistered_key(dataset_id), b"")
        except Exception:  # it is for the case only that this process ends before it knows more
            logger.warning("dataset %s couldn't be marked as unregistered", dataset_id, exc_info=True)

    async def _settle(self, request: ChangeRequest, record: DatasetRecord) -> None:
        """Find out what became of a request. After its deadline there is one answer, however often one asks."""
        await self._sleep(max(0.0, request.deadline - time.time()))
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                with repeating(request):
                    await self._tracker.add_dataset(record, self._storage.url)
                await asyncio.to_thread(self._storage.delete, dataset_keys.unregistered_key(record.id))
                logger.info("dataset %s was registered, though nobody was told", record.id)
            except (TooLateError, RedeployedError):
                await self._forget(self._storage, record.id)
                logger.info("dataset %s wasn't registered; its files are deleted", record.id)
            except Exception as error:
                logger.info("whether dataset %s is registered isn't known yet (%s)", record.id, type(error).__name__)
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            return
