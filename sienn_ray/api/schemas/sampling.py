"""Sampling fields of requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.inference.engine import SamplingParams

MAX_STOPS = 16
# No vocabulary has more tokens.
MAX_TOP_K = 1_000_000
# Where tokens are sampled. The likeliest token is the likeliest one, so nothing is taken from it unasked.
SAMPLED_REPETITION_PENALTY, GREEDY_REPETITION_PENALTY = 1.2, 1.0

StopString = Annotated[str, StringConstraints(max_length=500)]
Stop = StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)]

# Fields that requests of both APIs have, with limits and descriptions; defaults and examples are each one's own.
TopP = Annotated[float, Field(gt=0.0, le=1.0, description="Nucleus sampling threshold.")]
MinP = Annotated[float, Field(ge=0.0, le=1.0, description="Leaves out tokens below this share of the likeliest one's.")]
RepetitionPenalty = Annotated[float, Field(ge=0.5, le=5.0, description="Penalty for repeated tokens; 1.0 is none.")]
PresencePenalty = Annotated[
    float, Field(ge=-2.0, le=2.0, description="Taken from the logits of tokens that were generated.")
]
FrequencyPenalty = Annotated[
    float, Field(ge=-2.0, le=2.0, description="The same for each time that they were generated.")
]
Stops = Annotated[
    Stop | None,
    Field(description="Up to 16 strings that end the answer, which they don't belong to. Empty ones say nothing."),
]


def stops(value: Stop | None) -> tuple[str, ...]:
    """The stop strings of a field that takes one or several; forms send empty ones for what was left empty."""
    several = [value] if isinstance(value, str) else value or []
    return tuple(each for each in several if each)


class SamplingFields(RequestBody):
    """Fields that decide how the next token is chosen."""

    max_new_tokens: int = Field(200, ge=10, le=2000, description="Tokens to generate at the most.", examples=[200])
    temperature: float = Field(0.7, ge=0.1, le=2.0, description="Sampling temperature.", examples=[0.7])
    top_p: TopP = Field(0.95, examples=[0.95])
    repetition_penalty: RepetitionPenalty = Field(
        SAMPLED_REPETITION_PENALTY,
        description="Penalty for repeated tokens; 1.0 is none, as it is by default where `do_sample` is false.",
        examples=[SAMPLED_REPETITION_PENALTY],
    )
    do_sample: bool = Field(True, description="Sample, or take the likeliest token each time.", examples=[True])
    # The largest integer that every JSON parser holds exactly.
    seed: int | None = Field(
        None, ge=0, le=2**53 - 1, description="Makes a sampled answer repeatable.", examples=[None, 42]
    )
    top_k: int = Field(
        0, ge=0, le=MAX_TOP_K, description="Samples from this many of the likeliest tokens; 0 is all.", examples=[0, 40]
    )
    min_p: MinP = Field(0.0, examples=[0.05])
    presence_penalty: PresencePenalty = Field(0.0, examples=[0.0])
    frequency_penalty: FrequencyPenalty = Field(0.0, examples=[0.0])
    stop: Stops = Field(None, examples=[["\n\n"]])

    @property
    def sampling_params(self) -> SamplingParams:
        """The sampling parameters that the engine takes."""
        fields = {name: getattr(self, name) for name in SamplingFields.model_fields if name != "stop"}
        if not self.do_sample and "repetition_penalty" not in self.model_fields_set:
            fields["repetition_penalty"] = GREEDY_REPETITION_PENALTY
        return SamplingParams(**fields, stop=stops(self.stop))
