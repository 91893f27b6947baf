"""Bodies of a question that names no job."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from sienn_ray.api.schemas.common import JOB_ID
from sienn_ray.api.schemas.inference import Answer
from sienn_ray.api.schemas.messages import MAX_TEXT_CHARS
from sienn_ray.api.schemas.sampling import SamplingFields
from sienn_ray.catalog import CATALOG
from sienn_ray.inference.engine import ChatMessage

_PROMPT = "What is machine learning?"


class DemoRequest(SamplingFields):
    """A prompt for whichever model there is."""

    # A page that can't be changed may send what nobody here has heard of.
    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(min_length=1, max_length=MAX_TEXT_CHARS, description="What is asked.", examples=[_PROMPT])

    @property
    def chat_messages(self) -> tuple[ChatMessage, ...]:
        """The conversation that the prompt makes."""
        return (ChatMessage("user", self.prompt),)


class DemoResponse(Answer):
    """The answer, and who gave it."""

    job_id: str | None = Field(
        description="The job whose adapter answered; null is the base model.", examples=[JOB_ID, None]
    )
    model_name: str = Field(description="The base model.", examples=[CATALOG[0].id])
    response: str = Field(
        description="`generated_text` once more, under another name that chat pages read.",
        examples=["Machine learning is a branch of artificial intelligence..."],
    )
