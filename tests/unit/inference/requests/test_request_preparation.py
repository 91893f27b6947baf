from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.datasets.prompt import FILE_NAME, PromptFormat
from sienn_ray.errors import CapacityError, EngineError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest
from sienn_ray.inference.requests.adapter_files import AdapterFiles
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.prompts import Prompt, PromptEncoder
from sienn_ray.inference.requests.request_preparation import LoadedAdapter, RequestPreparation
from sienn_ray.inference.text.vocabulary import Vocabulary
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.unit.inference.small_tokenizers import byte_level

WAIT_S = 30.0
TOKENIZER = byte_level()


class Weights:
    """Weights of an adapter."""

    size_bytes = 10


class EndingEncoder(PromptEncoder):
    """Encodes, and ends an answer meanwhile."""

    answer: Answer | None = None

    def encode(self, request: GenerationRequest, prompt_format: PromptFormat | None = None) -> Prompt:
        if self.answer is not None:
            self.answer.fail(CapacityError("closed"))
        return super().encode(request, prompt_format)


@pytest.fixture
def prompts() -> EndingEncoder:
    return EndingEncoder("org/base", TOKENIZER, context_tokens=300)


@pytest.fixture
def prepare(tmp_path: Path) -> Iterator[Callable[..., RequestPreparation[Weights]]]:
    """Starts a preparation that has the adapters `a` and `b`, of which one fits into memory."""
    settings = Settings(env="test", home=tmp_path / "home", adapter_cache_max_count=1)
    storage = Storage(settings.storage_url)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE_NAME).write_text(PromptFormat.for_text().to_json())
        (tmp_path / name / "weights").write_text(name)
        storage.publish(tmp_path / name, f"adapters/{name}")
    started: list[RequestPreparation[Weights]] = []

    def start(
        prompts: PromptEncoder,
        read: Callable[[AdapterFiles], Weights] = lambda files: Weights(),
        unload: Callable[[Weights], None] = lambda weights: None,
    ) -> RequestPreparation[Weights]:
        started.append(RequestPreparation(settings, prompts, Vocabulary(TOKENIZER), read, unload))
        return started[-1]

    yield start
    for preparation in started:
        preparation.close()


def request_of(adapter: str | None, prompt: str = "Hello") -> GenerationRequest:
    return GenerationRequest(prompt, adapter_id=adapter, adapter_key=adapter and f"adapters/{adapter}")


def submit(
    preparation: RequestPreparation[Weights], request: GenerationRequest
) -> tuple[Answer, queue.SimpleQueue[Any]]:
    """Submit; gives a queue of what comes: the last delta, or the adapter of a request that is ready."""
    events: queue.SimpleQueue[GenerationDelta | LoadedAdapter[Weights] | None] = queue.SimpleQueue()
    answer = Answer(request, events.put)
    preparation.submit(answer, events.put)
    return answer, events


def test_a_request_is_ready_with_its_prompt_and_its_adapter(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder
) -> None:
    preparation = prepare(prompts)
    answer, events = submit(preparation, request_of("a"))
    adapter = events.get(timeout=WAIT_S)
    assert (adapter.files.folder / "weights").read_text() == "a"
    assert answer.prompt.text == "Hello"
    _, events = submit(preparation, request_of(None))
    assert events.get(timeout=WAIT_S) is None


def test_an_answer_holds_its_adapter_until_it_is_over(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder
) -> None:
    order: list[str] = []
    is_read = threading.Semaphore(0)

    def read(files: AdapterFiles) -> Weights:
        is_read.release()
        return Weights()

    preparation = prepare(prompts, read, lambda weights: order.append("evicted"))
    answer = Answer(request_of("a"), lambda delta: None)
    answer.at_end(lambda: order.append("over"))
    ready: queue.SimpleQueue[object] = queue.SimpleQueue()
    preparation.submit(answer, ready.put)
    ready.get(timeout=WAIT_S)
    _, waiting = submit(preparation, request_of("b"))
    for _ in "ab":
        assert is_read.acquire(timeout=WAIT_S)
    answer.fail(EngineError("over"))
    assert (waiting.get(timeout=WAIT_S).files.folder / "weights").read_text() == "b"
    assert order == ["over", "evicted"]


@pytest.mark.parametrize("prompt", ["", "a " * 300])
def test_a_prompt_that_is_refused_gives_its_adapter_back(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder, prompt: str
) -> None:
    preparation = prepare(prompts)
    _, events = submit(preparation, request_of("a", prompt))
    assert events.get(timeout=WAIT_S).error is not None
    _, events = submit(preparation, request_of("b"))
    assert events.get(timeout=WAIT_S).files is not None


def test_an_answer_that_ends_while_it_is_prepared_gives_its_adapter_back(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder
) -> None:
    preparation = prepare(prompts)
    preparation.load_adapter("a", "adapters/a")
    answer = Answer(request_of("a"), lambda delta: None)
    prompts.answer = answer
    ready: queue.SimpleQueue[object] = queue.SimpleQueue()
    preparation.submit(answer, ready.put)
    ready.get(timeout=WAIT_S)
    prompts.answer = None
    _, events = submit(preparation, request_of("b"))
    assert (events.get(timeout=WAIT_S).files.folder / "weights").read_text() == "b"


def test_an_error_that_is_none_of_ours_ends_the_request_too(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder
) -> None:
    def read(files: AdapterFiles) -> Weights:
        raise ZeroDivisionError("no weights")

    _, events = submit(prepare(prompts, read), request_of("a"))
    error = events.get(timeout=WAIT_S).error
    assert isinstance(error, EngineError)
    assert "ZeroDivisionError: no weights" in error.message


def test_a_cancelled_request_stops_waiting_for_room(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder
) -> None:
    preparation = prepare(prompts)
    _, first = submit(preparation, request_of("a"))
    first.get(timeout=WAIT_S)
    waiting, events = submit(preparation, request_of("b"))
    waiting.cancel()
    assert "was cancelled" in events.get(timeout=WAIT_S).error.message


def test_requests_for_an_adapter_that_does_not_come_hold_up_no_other(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder
) -> None:
    go_on = threading.Event()

    def read(files: AdapterFiles) -> Weights:
        if (files.folder / "weights").read_text() == "a":
            assert go_on.wait(WAIT_S)
        return Weights()

    preparation = prepare(prompts, read)
    stalled = [submit(preparation, request_of("a"))[1] for _ in range(8)]
    answer, events = submit(preparation, request_of("b"))
    assert (events.get(timeout=WAIT_S).files.folder / "weights").read_text() == "b"
    assert all(each.empty() for each in stalled)
    answer.fail(EngineError("over"))  # or it would stay in use
    go_on.set()
    for each in stalled:
        assert (each.get(timeout=WAIT_S).files.folder / "weights").read_text() == "a"


def test_a_closed_one_takes_no_request(
    prepare: Callable[..., RequestPreparation[Weights]], prompts: EndingEncoder
) -> None:
    preparation = prepare(prompts)
    preparation.close()
    _, events = submit(preparation, request_of(None))
    assert events.empty()
