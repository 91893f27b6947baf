"""vLLM itself: `AsyncLLM` on an event loop in a thread of its own, and the processes that it computes in."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from sienn_ray.errors import CapacityError, EngineError, first_line
from sienn_ray.inference.vllm_engine.lora_files import LoraFiles
from sienn_ray.inference.vllm_engine.loras import Loras
from sienn_ray.inference.vllm_engine.processes import CoreProcesses

logger = logging.getLogger(__name__)

# A core that is told to end has as long to free its device; then it is killed.
_GRACE_S = 5.0

_Result = TypeVar("_Result")


class Core:
    """A base model in vLLM.

    vLLM's scheduler and its model runner are in processes of their own, so that they don't share an interpreter with
    what turns tokens into text. Its `AsyncLLM`, which speaks with them, is on an event loop in a thread here.

    Args:
        arguments: Of `vllm.AsyncEngineArgs`.
        variables: The environment that vLLM's processes get.
        lora_files: Its adapters' files, which are removed at the end.

    Raises:
        EngineError: vLLM can't load the base model.
    """

    def __init__(self, arguments: Mapping[str, Any], variables: Mapping[str, str], lora_files: LoraFiles) -> None:
        self.arguments = arguments
        self._lora_files = lora_files
        self._variables = variables
        self._processes = CoreProcesses()
        self._numbers = itertools.count()
        self._is_closing = False
        self._has_ended = False
        self._when_over: list[Callable[[], None]] = []
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._thread.start()
        try:
            self.loop = self._started.result()
        except BaseException:
            self._thread.join()
            self._processes.close()
            raise

    @property
    def failure(self) -> str | None:
        """Reason why nothing can be computed any more, or None; a core that was closed has not failed."""
        if self._is_closing:
            return None
        if self._has_ended:
            return "the thread of vLLM has ended"
        return "the process of vLLM's core has ended" if self._llm.errored else None

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest prompt and its answer: the base model's, or as many as fit into the cache."""
        return int(self._llm.vllm_config.model_config.max_model_len)

    @property
    def process_ids(self) -> list[int]:
        """Ids of vLLM's processes."""
        return self._processes.ids

    @property
    def adapters(self) -> frozenset[str]:
        """Content hashes of the adapters that vLLM has in memory."""
        return self._loras.content_hashes

    def when_over(self, call: Callable[[], None]) -> None:
        """Call something once the thread has ended, in that thread."""
        self._when_over.append(call)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have the loop's thread call something; nothing happens once it has ended."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(call)

    def result_of(self, work: Coroutine[Any, Any, _Result], timeout_s: float | None = None) -> _Result:
        """Wait for work on the loop, from another thread.

        Raises:
            CapacityError: The loop has ended.
            TimeoutError: It takes too long.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError as error:  # it is closed
            work.close()
            raise CapacityError("the engine has stopped; try again in a moment") from error
        return future.result(timeout_s)

    def wait_for(self, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for work that ends something, for a while; nothing is done where the loop has ended."""
        with suppress(CapacityError, TimeoutError, CancelledError):
            self.result_of(stop(), _GRACE_S)

    def hold_lora(self, content_hash: str, files: Path) -> None:
        """Load an adapter; see `Loras.hold`."""
        self.result_of(self._loras.hold(content_hash, files))

    def release_lora(self, content_hash: str) -> None:
        """Give an adapter back that was held, without waiting for vLLM."""
        with suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(self._loras.release(content_hash), self.loop)

    def lora(self, content_hash: str | None) -> AbstractAsyncContextManager[Any]:
        """Hold an adapter that is held for as long as a request of it runs; gives what vLLM calls it."""
        return nullcontext() if content_hash is None else self._loras.held(content_hash)

    async def generate(self, input_ids: list[int], sampling: Mapping[str, Any], lora: Any) -> AsyncGenerator[Any]:
        """Compute an answer; whoever closes the generator, or cancels the task that waits for it, aborts the request.

        Args:
            input_ids: The prompt.
            sampling: Fields of `vllm.SamplingParams`.
            lora: What `lora` gave.
        """
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(**sampling, output_kind=RequestOutputKind.DELTA)
        name = f"request-{next(self._numbers)}"
        outputs = self._llm.generate(tokens_input(input_ids), params, name, lora_request=lora)
        try:
            async for output in outputs:
                yield output
        finally:
            await outputs.aclose()

    def kill(self) -> None:
        """End vLLM's processes at once, whatever they do; the rest fails by itself."""
        self._processes.kill()

    def close(self) -> None:
        """End vLLM's processes and the thread; a repeat changes nothing."""
        self._is_closing = True
        self.call_soon(self.loop.stop)
        self._thread.join(2 * _GRACE_S)
        self._processes.close()
        self._thread.join()

    # The loop's thread.

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            if self._start(loop):
                loop.run_forever()
        finally:
            self._has_ended = True
            for call in self._when_over:
                call()
            self._end(loop)
            self._lora_files.close()

    def _start(self, loop: asyncio.AbstractEventLoop) -> bool:
        try:
            with self._processes.environment(self._variables):
                self._llm = loop.run_until_complete(_started(self.arguments))
                from vllm.lora.request import LoRARequest
            self._loras = Loras(self._llm, self._lora_files, LoRARequest)
        except BaseException as error:
            logger.exception("vLLM can't be started")
            told = f"vLLM can't load {self.arguments['model']}: {first_line(error)}; its log says why"
            self._started.set_exception(EngineError(told))
            return False
        self._started.set_result(loop)
        return True

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        try:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            if hasattr(self, "_llm"):
                self._llm.shutdown(timeout=_GRACE_S)
        except BaseException:  # the processes are killed all the same
            logger.exception("vLLM didn't end as it should")
        self._processes.kill()
        loop.run_until_complete(loop.shutdown_default_executor())  # its threads change files
        loop.close()


def is_refusal(error: Exception) -> bool:
    """Return whether vLLM says with an error that a request is wrong, rather than that it has failed."""
    from vllm.exceptions import VLLMClientError

    return isinstance(error, VLLMClientError)


async def _started(arguments: Mapping[str, Any]) -> Any:
    """Start `AsyncLLM` within a running loop, as it wants to be."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
