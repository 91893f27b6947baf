from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sienn_ray.errors import EngineError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, SamplingParams
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.sampling.logprobs import Sampled
from sienn_ray.inference.text.vocabulary import Vocabulary
from tests.unit.inference.small_tokenizers import byte_level

TOKENIZER = byte_level()
EOS = frozenset({TOKENIZER.eos_token_id})


def answer_of(deltas: list[GenerationDelta], **sampling: object) -> Answer:
    """An answer whose prompt is read and whose turn has come."""
    request = GenerationRequest("Hello", sampling=SamplingParams(**sampling))  # type: ignore[arg-type]
    answer = Answer(request, deltas.append)
    prompt = PromptEncoder("org/base", TOKENIZER, context_tokens=None).encode(request)
    answer.read(prompt, Vocabulary(TOKENIZER), adapter_cached=True)
    answer.start(num_cached_tokens=2)
    return answer


def say(answer: Answer, text: str) -> None:
    """Append the tokens of a text, while the answer isn't over."""
    for token_id in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        if not answer.is_over:
            answer.take(Sampled(token_id), EOS)


@pytest.mark.parametrize(
    ("sampling", "text", "reason", "num_generated"),
    [
        ({}, "a b<|end|>c", "stop", 4),
        ({"stop": ("b",)}, "a bc", "stop", 3),
        ({"max_new_tokens": 2}, "abc", "length", 2),
    ],
)
def test_ends(sampling: dict[str, object], text: str, reason: str, num_generated: int) -> None:
    deltas: list[GenerationDelta] = []
    answer = answer_of(deltas, **sampling)
    say(answer, text)
    result = deltas[-1].result
    assert result is not None
    assert (result.finish_reason, result.num_generated_tokens) == (reason, num_generated)
    assert result.text == "".join(delta.text for delta in deltas)
    assert result.num_cached_tokens == 2
    assert [delta.is_last for delta in deltas].count(True) == 1


def test_a_cancelled_one_ends_with_its_text_or_before_its_turn_with_an_error() -> None:
    deltas: list[GenerationDelta] = []
    answer = answer_of(deltas)
    say(answer, "abc")
    answer.cancel()
    answer.drop()
    assert deltas[-1].result is not None
    assert (deltas[-1].result.text, deltas[-1].result.finish_reason) == ("abc", "cancelled")

    waiting = Answer(GenerationRequest("Hello"), deltas.append)
    waiting.drop()
    assert isinstance(deltas[-1].error, EngineError)


def test_what_a_request_holds_is_given_back_before_the_last_delta_and_once() -> None:
    events: list[object] = []
    answer = Answer(GenerationRequest("Hello"), events.append)
    answer.at_end(lambda: events.append("first"))
    answer.at_end(lambda: events.append("second"))
    error = EngineError("broken")
    answer.fail(error)
    answer.fail(EngineError("again"))
    assert events == ["first", "second", GenerationDelta(error=error)]
    answer.at_end(lambda: events.append("late"))
    assert events[-1] == "late"


def test_failures_of_many_threads_end_it_once() -> None:
    deltas: list[GenerationDelta] = []
    answer = answer_of(deltas)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: answer.fail(EngineError(str(number))), range(50)))
    assert len(deltas) == 1


def test_a_listener_that_fails_cancels_its_request() -> None:
    def fail(delta: GenerationDelta) -> None:
        raise RuntimeError("Event loop is closed")

    answer = Answer(GenerationRequest("Hello"), fail)
    answer.fail(EngineError("broken"))
    assert answer.is_cancelled
