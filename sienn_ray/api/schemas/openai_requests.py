"""Fields that requests of the OpenAI API share, with the sampling fields that vLLM adds to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic_core import CoreSchema

from sienn_ray.api.schemas.common import JOB_ID, RequestBody
from sienn_ray.api.schemas.sampling import (
    MAX_TOP_K,
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Stops,
    TopP,
    stops,
)
from sienn_ray.catalog import CATALOG
from sienn_ray.inference.engine import ChatMessage, GenerationRequest, SamplingParams

MAX_CHOICES = 8
MAX_TOKENS = 100_000
DEFAULT_MAX_TOKENS = 1024
MAX_NAME_CHARS = 200
_SEED_LIMIT = 2**53 - 1
# Below, the likeliest token is chosen anyway, and logits divided by it may overflow.
_MIN_TEMPERATURE = 0.01
_ABOUT_A_FIELD = ("title", "description", "default", "examples")


def _refuse(value: Any) -> Any:
    if value:
        raise ValueError("is not supported here; leave it out")
    return value


NoObject = Annotated[dict[str, Any], Field(max_length=0), BeforeValidator(_refuse)]
NoText = Annotated[str, Field(max_length=0), BeforeValidator(_refuse)]
# Some clients write "no limit" so.
TokenLimit = Annotated[
    int | None,
    Field(ge=1, le=MAX_TOKENS),
    BeforeValidator(lambda value: None if value == -1 else value),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_TOKENS}, {"const": -1}, {"type": "null"}]}
    ),
]
NoFlag = Annotated[bool, BeforeValidator(_refuse), Field(json_schema_extra={"const": False})]


@dataclass(frozen=True)
class AskedAs:
    """The tools and variables that a prompt is rendered with, and where its answer begins; see `GenerationRequest`."""

    tools: tuple[Mapping[str, Any], ...] = ()
    continues: bool = False
    template_variables: Mapping[str, Any] = field(default_factory=dict)

    def of(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with these."""
        variables = {**request.template_variables, **self.template_variables}
        return replace(request, tools=self.tools, continues=self.continues, template_variables=variables)


class Options(RequestBody):
    """Base of options within a request, in which null stands for a default."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: given for name, given in value.items() if given is not None}


class StreamOptions(Options):
    """Options of a stream."""

    include_usage: bool | None = Field(None, description="End with a chunk that has the usage.", examples=[True])
    include_obfuscation: bool | None = Field(None, description="Accepted and ignored.", examples=[False])


class OpenAiRequest(RequestBody):
    """Base of these requests: null stands for a default, and what would change no answer is accepted and ignored."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        {
            "metadata",
            "parallel_tool_calls",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
        }
    )

    model: str = Field(
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="A base model's hub id, or the id of a completed job.",
        examples=[JOB_ID, CATALOG[0].id],
    )
    n: int = Field(1, ge=1, le=MAX_CHOICES, description="Answers to each prompt.", examples=[1])
    temperature: float = Field(
        1.0, ge=0.0, le=2.0, description="Sampling temperature; 0 takes the likeliest token each time.", examples=[1.0]
    )
    top_p: TopP = Field(1.0, examples=[1.0])
    top_k: int = Field(
        0, ge=-1, le=MAX_TOP_K, description="Samples from this many tokens; 0 and -1 are all.", examples=[0]
    )
    min_p: MinP = Field(0.0, examples=[0.0])
    repetition_penalty: RepetitionPenalty = Field(1.0, examples=[1.0])
    presence_penalty: PresencePenalty = Field(0.0, examples=[0.0])
    frequency_penalty: FrequencyPenalty = Field(0.0, examples=[0.0])
    stop: Stops = Field(None, examples=[["\n\n"]])
    seed: int | None = Field(
        None,
        ge=-_SEED_LIMIT,
        le=_SEED_LIMIT,
        description="Makes sampled answers repeatable; the i-th of `n` has the seed plus i.",
        examples=[None, 42],
    )
    stream: bool = Field(False, description="Send the answer as it comes, as server-sent events.", examples=[False])
    stream_options: StreamOptions = Field(default_factory=StreamOptions, description="What a stream has besides.")
    logit_bias: NoObject = Field({}, description="Not supported.", examples=[{}])

    @model_validator(mode="before")
    @classmethod
    def _without_what_says_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        # Clients write out what they know and don't mean; null says nothing of a field that isn't known here either.
        said = {name: given for name, given in value.items() if given is not None or name in required}
        return {name: given for name, given in said.items() if name not in cls.ignored}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add what the schema of the fields alone doesn't say: which may be null, and which are ignored."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        properties = schema["properties"]
        for name in properties.keys() - set(schema["required"]):
            properties[name] = _or_null(properties[name])
        ignored = {"description": "Accepted and ignored.", "examples": [None]}
        properties.update({name: dict(ignored) for name in sorted(cls.ignored)})
        schema["additionalProperties"] = {"type": "null", "description": "Null says nothing of any field."}
        return reference

    @property
    @abstractmethod
    def prompts(self) -> Sequence[tuple[ChatMessage, ...] | str]:
        """The conversations or texts to continue."""

    @property
    def as_asked(self) -> AskedAs:
        """The tools and variables that the prompts are rendered with, and where answers begin."""
        return AskedAs()

    @abstractmethod
    def sampling_of(self, choice: int) -> SamplingParams:
        """Return the sampling parameters of one of the answers to a prompt, by its number."""

    def _sampling_params(
        self, choice: int, *, max_tokens: int, num_logprobs: int | None, fits_context: bool = False
    ) -> SamplingParams:
        """Return the sampling parameters of one of the answers to a prompt.

        Args:
            choice: Its number, from 0 to `n` - 1.
            max_tokens: Tokens at the most.
            num_logprobs: See `SamplingParams`.
            fits_context: See `SamplingParams`.
        """
        is_greedy = self.temperature < _MIN_TEMPERATURE
        return SamplingParams(
            max_new_tokens=max_tokens,
            fits_context=fits_context,
            temperature=1.0 if is_greedy else self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            do_sample=not is_greedy,
            seed=None if self.seed is None else (self.seed + choice) % (_SEED_LIMIT + 1),
            stop=stops(self.stop),
            num_logprobs=num_logprobs,
        )


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    about = {name: schema[name] for name in _ABOUT_A_FIELD if name in schema}
    values = {name: part for name, part in schema.items() if name not in about}
    alternatives = values.get("anyOf", [values])
    null = {"type": "null"}
    return {"anyOf": [*alternatives, *([] if null in alternatives else [null])], **about}
