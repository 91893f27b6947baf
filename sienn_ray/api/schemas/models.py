"""Bodies about base models."""

from __future__ import annotations

from pydantic import Field

from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.catalog import CATALOG

_FIRST = CATALOG[0]


class BaseModelSummary(ResponseBody):
    """A base model that is offered."""

    id: str = Field(description="Its hub id, which is what `model_name` takes.", examples=[_FIRST.id])
    name: str = Field(description="Its name for people.", examples=[_FIRST.name])
    vram_required_gb: int = Field(
        description="GB of GPU memory in which it can be fine-tuned.", examples=[_FIRST.vram_required_gb]
    )
    quality_rating: int = Field(
        ge=1, le=5, description="How good its answers are; 5 is best.", examples=[_FIRST.quality_rating]
    )
    speed_rating: int = Field(ge=1, le=5, description="How fast it is; 5 is fastest.", examples=[_FIRST.speed_rating])
    batch_size: int = Field(description="A batch size known to fit.", examples=[_FIRST.batch_size])
    max_length: int = Field(description="A row length in tokens known to fit.", examples=[_FIRST.max_length])
    learning_rate: float = Field(description="A learning rate known to work.", examples=[_FIRST.learning_rate])
    description: str = Field(description="What it is good for.", examples=[_FIRST.description])
    is_cached: bool = Field(description="Whether the weights are on this machine.", examples=[True])
    cache_size_bytes: int | None = Field(
        description="Bytes that they take here; null where they aren't.", examples=[524288000, None]
    )


class BaseModelList(ResponseBody):
    """The catalog."""

    models: list[BaseModelSummary] = Field(description="The base models, the lightest first.")
