"""Hyperparameters as fields of a request's body: those of the training configuration, side by side."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.training.config import (
    DEFAULT_RANK,
    AdapterHyperparameters,
    Rank,
    RunHyperparameters,
    TrainingConfig,
)
from sienn_ray.training.hyperparameters import config_of, flat_values


class _Rank(RequestBody):
    lora_r: Rank = Field(DEFAULT_RANK)


# The fields of the last base are the first.
class Hyperparameters(AdapterHyperparameters, _Rank, RunHyperparameters, RequestBody):
    """Hyperparameters of a fine-tune."""

    def config_for(self, base_model: str) -> TrainingConfig:
        """Return the configuration as the training program takes it.

        Raises:
            ValidationError: Values that are fine each don't go together.
        """
        return config_of(base_model, self.model_dump(include=set(Hyperparameters.model_fields)))


def hyperparameters(config: TrainingConfig) -> dict[str, Any]:
    """A job's configuration under the request's field names."""
    # By way of JSON, which has null for an infinite number: the command line once took one.
    return flat_values(json.loads(config.model_dump_json()))
