from __future__ import annotations

import asyncio
import time

from sienn_ray.jobs.change_requests import ChangeRequest, current_request, repeating


def test_each_wish_has_its_id_and_its_deadline() -> None:
    first, second = current_request(30.0), current_request(30.0)
    assert first.id != second.id
    assert time.time() < first.deadline <= time.time() + 30.0


def test_renewed_request_is_the_same_with_more_time() -> None:
    first = ChangeRequest("request-1", deadline=0.0)
    assert first.renewed(30.0).id == "request-1"
    assert first.renewed(30.0).deadline > time.time()


def test_block_repeats_one_request_and_others_do_not() -> None:
    request = ChangeRequest.within(30.0)

    async def ask() -> str:
        await asyncio.sleep(0)
        return current_request(30.0).id

    async def ask_twice() -> list[str]:
        other = asyncio.create_task(ask())
        with repeating(request):
            same = [await ask(), await ask()]
        return [*same, await other, await ask()]

    ids = asyncio.run(ask_twice())
    assert ids[:2] == [request.id] * 2
    assert request.id not in ids[2:]
