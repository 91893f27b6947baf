"""What one fine-tune is asked to do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Strict, Tag

MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-5, 1e-3
MAX_NUM_WORKERS = 64
# PEFT's name for every linear layer but the output head.
ALL_LINEAR: Literal["all-linear"] = "all-linear"

LrScheduler = Literal["cosine", "linear", "constant"]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,128}$")]


def _without_duplicates(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names a module more than once: {', '.join(repeated)}")
    return names


# A list will do where types are strict: JSON has no tuples.
ModuleNames = Annotated[
    tuple[ModuleName, ...], Strict(False), Field(min_length=1, max_length=64), AfterValidator(_without_duplicates)
]


def _kind_of(value: Any) -> str:
    """Which of the two was meant, so that a wrong value has one error instead of one for each."""
    return "word" if isinstance(value, str) else "names"


TargetModules = Annotated[
    Annotated[Literal["all-linear"], Tag("word")] | Annotated[ModuleNames, Tag("names")], Discriminator(_kind_of)
]


class LoraSettings(BaseModel):
    """Shape of the adapter (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(16, ge=1, le=256)
    lora_alpha: int = Field(32, ge=1, le=1024)
    lora_dropout: float = Field(0.05, ge=0.0, lt=1.0)
    target_modules: TargetModules = Field(
        ALL_LINEAR, description="Ends of module names that get an adapter, or every linear one but the output head."
    )


class TrainingConfig(BaseModel):
    """Hyperparameters of one fine-tune; frozen, so that a resumed run is the run that was started.

    Every field but the base model has a default, so that records of earlier versions can be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    learning_rate: float = Field(2e-4, ge=MIN_LEARNING_RATE, le=MAX_LEARNING_RATE)
    num_epochs: int = Field(3, ge=1, le=10)
    batch_size: int = Field(4, ge=1, le=32, description="Rows in one forward pass, over all workers.")
    max_length: int = Field(512, ge=128, le=2048, description="Tokens in one row, prompt and completion.")
    gradient_accumulation_steps: int = Field(1, ge=1, le=64, description="Forward passes in one optimizer step.")
    warmup_ratio: float = Field(0.06, ge=0.0, le=0.5, description="Share of the steps with a rising learning rate.")
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    lr_scheduler: LrScheduler = Field("cosine", description="How the learning rate goes on after its rise.")
    max_grad_norm: float = Field(1.0, gt=0.0)
    validation_split: float = Field(0.1, ge=0.0, le=0.5, description="Share of the rows held out for evaluation.")
    num_workers: int | None = Field(
        None, ge=1, le=MAX_NUM_WORKERS, description="Ray Train workers; None is SIENN_TRAINING_NUM_WORKERS."
    )
    seed: int = Field(42, ge=0, lt=2**31)
    lora: LoraSettings = LoraSettings()

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step, over all workers."""
        return self.batch_size * self.gradient_accumulation_steps
