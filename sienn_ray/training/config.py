"""What one fine-tune is asked to do."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-5, 1e-3


class LoraSettings(BaseModel):
    """Shape of the adapter (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(16, ge=1, le=256)
    lora_alpha: int = Field(32, ge=1, le=1024)
    lora_dropout: float = Field(0.05, ge=0.0, lt=1.0)
    # PEFT's name for every linear layer but the output head.
    target_modules: Literal["all-linear"] = "all-linear"


class TrainingConfig(BaseModel):
    """Hyperparameters of one fine-tune; frozen, so that a resumed run is the run that was started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    learning_rate: float = Field(2e-4, ge=MIN_LEARNING_RATE, le=MAX_LEARNING_RATE)
    num_epochs: int = Field(3, ge=1, le=10)
    batch_size: int = Field(4, ge=1, le=32, description="Rows in one optimizer step, over all workers.")
    max_length: int = Field(512, ge=128, le=2048, description="Tokens in one row, prompt and completion.")
    warmup_ratio: float = Field(0.06, ge=0.0, le=0.5, description="Share of the steps with a rising learning rate.")
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    validation_split: float = Field(0.1, ge=0.0, le=0.5, description="Share of the rows held out for evaluation.")
    seed: int = Field(42, ge=0, lt=2**31)
    lora: LoraSettings = LoraSettings()
