"""The interface of engines: requests, results, and the `Engine` protocol; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sienn_ray.errors import SiennError

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of the choice of each next token.

    Args:
        max_new_tokens: Tokens to generate at the most.
        fits_context: Whether fewer are as good, where the prompt leaves less room.
        temperature: Divides the logits before sampling.
        top_p: Nucleus: samples from the smallest set of tokens with at least this probability (Holtzman et al. 2020).
        top_k: Samples from this many tokens; 0 is all of them.
        min_p: Leaves out tokens below this share of the likeliest one's probability (Nguyen et al. 2024).
        repetition_penalty: Divides the logits of tokens that stand in the text already (Keskar et al. 2019, CTRL).
        presence_penalty: Taken from the logits of tokens that were generated already.
        frequency_penalty: Taken from them once for each time that they were.
        do_sample: Sample, or take the likeliest token.
        seed: Makes sampling repeatable; None is another seed for each request.
        stop: Strings that end the answer and are no part of it.
        num_logprobs: Likeliest tokens whose log-probabilities are given beside each token's own; None gives none.
    """

    max_new_tokens: int = 200
    fits_context: bool = False
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
class ToolCall:
    """A call of a tool.

    Args:
        name: The tool's name.
        arguments: A JSON object, as text.
        id: The call's id, which the message with its result names.
    """

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation.

    Args:
        role: The speaker.
        content: What is said; empty in a message that only calls tools.
        reasoning_content: The assistant's reasoning before its answer; most templates leave that of earlier turns out.
        tool_calls: Calls in an assistant's message.
        tool_call_id: The call that a tool's message answers.
        name: The speaker's name, or the tool's.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def as_rows_have_it(self) -> dict[str, Any]:
        """The message in OpenAI's form, with the fields that it has."""
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({} if call.id is None else {"id": call.id})
            for call in self.tool_calls
        ]
        others = {
            "reasoning_content": self.reasoning_content,
            "tool_calls": calls,
            "tool_call_id": self.tool_call_id,
            "name": self.name,
        }
        return {"role": self.role, "content": self.content} | {name: each for name, each in others.items() if each}


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt for a base model, with an adapter or without.

    Args:
        prompt: A conversation, which the engine renders in the prompt format that training used, or text that the
            model continues as it is.
        adapter_id: The adapter's job id; None is the base model itself.
        adapter_key: Storage key of that adapter.
        sampling: Parameters of the choice of tokens.
        base_model_revision: The commit that the base model's weights have to be of; None takes any.
        tools: Tools that the model may call, in OpenAI's form.
        continues: Whether the answer goes on with the conversation's last message, which is the assistant's.
        template_variables: Values of the chat template's variables, over those that the adapter was trained with.
        adapter_config: Fields of the adapter's `adapter_config.json` that say which kinds of engines can serve it.
    """

    prompt: tuple[ChatMessage, ...] | str
    adapter_id: str | None = None
    adapter_key: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    base_model_revision: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    continues: bool = False
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    adapter_config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def ask(cls, question: str, **fields: object) -> GenerationRequest:
        """Build a request with a conversation of a single question."""
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

    `generation_time_s` counts from the request's place in the batch to the last token; `time_to_first_token_s` from its
    arrival to the first token, waiting included, or is None where there was none.
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
    # Prompt tokens whose keys and values were in the prefix cache.
    num_cached_tokens: int = 0
    # Whether the prompt has opened a block of reasoning, within which the answer begins.
    begins_in_reasoning: bool = False


@dataclass(frozen=True)
class GenerationDelta:
    """A piece of an answer: whole characters, never a part of what may turn out to be a stop string.

    The last delta has the result, whose text is that of all deltas together, or the error. `begins_in_reasoning` is the
    result's, known from the first one on.
    """

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    result: GenerationResult | None = None
    error: SiennError | None = None
    begins_in_reasoning: bool = False

    @property
    def is_last(self) -> bool:
        """True where no delta follows."""
        return self.result is not None or self.error is not None


class Generation(Protocol):
    """A request that an engine has accepted."""

    def cancel(self) -> None:
        """End the request at the next step and free its resources; safe at any time and from any thread."""
        ...


class Engine(Protocol):
    """Generates text with one base model and its adapters, many requests at a time.

    The interface is narrow, so that other programs fit behind it: vLLM on a GPU, llama.cpp for quantized weights. What
    is the same for all engines is ready for use: `RequestPreparation`, `OpenRequests`, `Answer`. The tests in
    `tests/unit/inference/conformance` hold for each engine.
    """

    @property
    def num_cpus(self) -> int | None:
        """CPUs that the engine computes with; None on a GPU."""
        ...

    @property
    def num_adapters(self) -> int:
        """Adapters in memory."""
        ...

    @property
    def stuck_s(self) -> float:
        """Seconds since the current step began; 0 between steps."""
        ...

    @property
    def failure(self) -> str | None:
        """Reason why the engine can't answer any more: a dead thread, a faulty device, steps that all fail; else None.

        An engine that was closed has not failed. One that has ends every open request at once, and takes no other.
        """
        ...

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        """Queue a request and return at once.

        Args:
            request: What to generate.
            listener: Gets deltas in order, from a thread of the engine, so it has to be quick and must not raise. The
                last one has the result or the error.

        Raises:
            QueueFullError: The queue is full.
            CapacityError: The engine is closed, or has failed.
        """
        ...

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        """Load an adapter before a request names it; returns once it is in memory.

        Raises:
            SiennError: The adapter can't be loaded.
        """
        ...

    def close(self) -> None:
        """End all threads; requests without an answer get an error. A repeat changes nothing."""
        ...

    def kill(self) -> None:
        """End the engine's own processes at once, before this process ends without closing the engine.

        A process that outlives its parent would keep the GPU.
        """
        ...
