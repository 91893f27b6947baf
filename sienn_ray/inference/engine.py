"""What an engine is asked and what it answers; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sienn_ray.errors import SiennError

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen.

    Args:
        max_new_tokens: Tokens to generate at the most.
        temperature: Divides the logits before sampling.
        top_p: Nucleus: samples from the smallest set of tokens with at least this probability (Holtzman et al. 2020).
        top_k: Samples from this many tokens; 0 is all of them.
        min_p: Leaves out tokens below this share of the likeliest one's probability (Nguyen et al. 2024).
        repetition_penalty: Divides the logits of tokens that stand in the text already (Keskar et al. 2019, CTRL).
        presence_penalty: Taken from the logits of tokens that were generated already.
        frequency_penalty: The same for each time that they were.
        do_sample: Sample, or take the likeliest token.
        seed: Makes sampling repeatable; None draws anew.
        stop: Strings that end the answer, which they don't belong to.
        num_logprobs: Give the log-probability of each token, and of this many of the likeliest beside it; None is none.
    """

    max_new_tokens: int = 200
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.2
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    do_sample: bool = True
    seed: int | None = None
    stop: tuple[str, ...] = ()
    num_logprobs: int | None = None


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt for a base model, with an adapter or without.

    Args:
        prompt: A conversation, which the engine puts into the prompt format that training used, or text that the model
            goes on from as it is.
        adapter_id: The adapter's job id; None asks the base model itself.
        adapter_key: Storage key of that adapter.
        sampling: How tokens are chosen.
    """

    prompt: tuple[ChatMessage, ...] | str
    adapter_id: str | None = None
    adapter_key: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)

    @classmethod
    def ask(cls, question: str, **fields: object) -> GenerationRequest:
        """A conversation of a single question."""
        return cls((ChatMessage("user", question),), **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TokenLogprob:
    """A token with the natural logarithm of its probability, before temperature and penalties.

    `token_bytes` are what the token adds to the text; a token may be a part of a character.
    """

    token_id: int
    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class GenerationResult:
    """One answer.

    `generation_time_s` counts from the request's turn to the last token, loading included; `time_to_first_token_s` from
    its arrival to the first token, waiting included, or is None where there was none.
    """

    text: str
    rendered_prompt: str
    num_prompt_tokens: int
    num_generated_tokens: int
    finish_reason: FinishReason
    adapter_cached: bool
    generation_time_s: float
    time_to_first_token_s: float | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    # Prompt tokens whose keys and values were there from an earlier request.
    num_cached_tokens: int = 0


@dataclass(frozen=True)
class GenerationDelta:
    """What has come since the last one: whole characters, never a part of what may turn out to be a stop string.

    The last one has the result, whose text is all the others' together, or the error.
    """

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    result: GenerationResult | None = None
    error: SiennError | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes behind it."""
        return self.result is not None or self.error is not None


class Generation(Protocol):
    """A request that an engine has taken."""

    def cancel(self) -> None:
        """Give its place free at the next step; safe at any time and from any thread."""
        ...


class Engine(Protocol):
    """Generates text with one base model and its adapters, many requests at a time.

    What is narrow here can be had of other programs as well: vLLM on a GPU, llama.cpp for quantized weights.
    """

    @property
    def num_adapters(self) -> int:
        """Adapters in memory."""
        ...

    @property
    def stuck_s(self) -> float:
        """Seconds that its present step has taken; 0 between steps."""
        ...

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        """Queue a request and return at once.

        Args:
            request: What to generate.
            listener: Gets deltas in order, from a thread of the engine, so it has to be quick and must not raise. The
                last one tells the result or the error.

        Raises:
            CapacityError: The queue is full.
        """
        ...

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """Have an adapter in memory before it is asked for; waits until it is there.

        Raises:
            SiennError: It can't be loaded.
        """
        ...

    def close(self) -> None:
        """End all threads; requests that aren't answered get an error."""
        ...
