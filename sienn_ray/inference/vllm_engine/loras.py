"""Adapters that vLLM has in memory."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sienn_ray.errors import CapacityError, EngineError, first_line
from sienn_ray.inference.vllm_engine.lora_files import LoraFiles

logger = logging.getLogger(__name__)


@dataclass
class _Held:
    """An adapter, with the number of those who hold it."""

    request: Any
    num_holders: int = 0


class Loras:
    """Adapters of a core, each in it while somebody holds it. For the loop's thread.

    Each has its content's hash for a name, so that the prefix cache can't give it another one's keys and values (vLLM
    #42125, #45981), and each hash a number that no other gets (#30931). An adapter is in vLLM before a request names
    it, since one that can't be read while requests are scheduled ends the core; its files are linked into a folder of
    the core's and stay there as long as vLLM might read them again. All streams are on the loop, so threads of its own
    change the files.

    Args:
        llm: vLLM's `AsyncLLM`.
        files: The core's own files.
        request_of: `vllm.lora.request.LoRARequest`, made of name, number and path.
    """

    def __init__(self, llm: Any, files: LoraFiles, request_of: Callable[[str, int, str], Any]) -> None:
        self._llm = llm
        self._request_of = request_of
        self._files = files
        self._numbers = itertools.count(1)
        self._number_of: dict[str, int] = {}
        self._held: dict[str, _Held] = {}
        self._changing = asyncio.Lock()

    @property
    def content_hashes(self) -> frozenset[str]:
        """Adapters that somebody holds; for any thread."""
        return frozenset(self._held)

    async def hold(self, content_hash: str, files: Path) -> None:
        """Load an adapter, unless it is held already; it is held once more.

        Raises:
            EngineError: vLLM refuses it.
            CapacityError: vLLM's core has ended.
        """
        async with self._changing:
            held = self._held.get(content_hash)
            if held is None:
                held = _Held(await self._request(content_hash, files))
                await self._add(held.request)
                self._held[content_hash] = held
            held.num_holders += 1

    @asynccontextmanager
    async def held(self, content_hash: str) -> AsyncIterator[Any]:
        """Hold an adapter that is held already; gives vLLM's request for it."""
        held = self._held[content_hash]
        held.num_holders += 1
        try:
            yield held.request
        finally:
            # A request that is cancelled once more meanwhile would leave the adapter to vLLM for good.
            await asyncio.shield(self.release(content_hash))

    async def release(self, content_hash: str) -> None:
        """Hold an adapter once less; the last one has vLLM forget it."""
        self._held[content_hash].num_holders -= 1
        async with self._changing:
            held = self._held.get(content_hash)
            if held is None or held.num_holders > 0:
                return
            del self._held[content_hash]
            try:
                await self._llm.remove_lora(held.request.lora_int_id)
            except Exception:  # vLLM evicts it in time
                logger.exception("vLLM didn't remove adapter %s", content_hash)
            await asyncio.to_thread(self._files.remove, content_hash)

    async def _request(self, content_hash: str, files: Path) -> Any:
        number = self._number_of.get(content_hash)
        if number is None:
            number = self._number_of[content_hash] = next(self._numbers)
        own = await asyncio.to_thread(self._files.add, content_hash, files)
        return self._request_of(content_hash, number, str(own))

    async def _add(self, request: Any) -> None:
        try:
            await self._llm.add_lora(request)
        except Exception as error:
            await asyncio.to_thread(self._files.remove, request.lora_name)
            if self._llm.errored:
                raise CapacityError("the engine has failed and is being replaced; ask again in a moment") from error
            raise EngineError(f"vLLM can't load the adapter: {first_line(error)}") from error
