"""Configuration of one fine-tune."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    model_validator,
)

from sienn_ray.datasets import render_options
from sienn_ray.datasets.render_options import RenderOptions, TemplateVariables
from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.training.upper_bounds import UpperBound

MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-5, 1e-3
MAX_NUM_WORKERS = 64
# Tokens in one row: limits of `max_length`, of which the service's settings raise the upper one.
MIN_ROW_TOKENS, DEFAULT_ROW_TOKENS = 128, 512
# PEFT's name for every linear layer but the output head.
ALL_LINEAR: Literal["all-linear"] = "all-linear"

MAX_TRAIN_TIME_S = 30 * 24 * 3600.0
ROW_TOKENS_BOUND = UpperBound("max_row_tokens")
RowTokens = Annotated[int, ROW_TOKENS_BOUND]
LrScheduler = Literal["cosine", "linear", "constant"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
MethodName = Literal["auto", "sft", "dpo", "ipo", "kto", "orpo", "simpo"]
Quantization = Literal["nf4"]
Sharding = Literal["auto", "never", "always"]
SpecialTokens = Literal["auto", "text", "tokens"]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,128}$")]


def _without_duplicates(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names a module more than once: {', '.join(repeated)}")
    return names


# A list will do where types are strict: JSON has no tuples.
ModuleNames = Annotated[
    tuple[ModuleName, ...],
    Strict(False),
    Field(min_length=1, max_length=64, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_without_duplicates),
]


def _kind_of(value: Any) -> str:
    """Which of the two was meant, so that a wrong value has one error instead of one for each."""
    return "word" if isinstance(value, str) else "names"


DEFAULT_RANK = 16
Rank = Annotated[int, Field(ge=1, le=256, description="Rank of the adapter's matrices.", examples=[16])]
TargetModules = Annotated[
    Annotated[Literal["all-linear"], Tag("word")] | Annotated[ModuleNames, Tag("names")], Discriminator(_kind_of)
]


class _Rank(BaseModel):
    r: Rank = Field(DEFAULT_RANK)


_SCALAR = ("string", "number", "boolean", "null")
# The rest of what `render_options.checked_values` checks can't be said in a schema.
ChatTemplateKwargs = Annotated[
    dict[str, Any],
    BeforeValidator(render_options.checked_values),
    Field(
        json_schema_extra={
            "maxProperties": render_options.MAX_VARIABLES,
            "propertyNames": {
                "pattern": render_options.NAME_PATTERN,
                "not": {"anyOf": [{"pattern": "_tokens?$"}, {"enum": sorted(render_options.RESERVED_NAMES)}]},
            },
            "additionalProperties": {
                "type": [*_SCALAR, "array"],
                "minimum": -render_options.MAX_NUMBER,
                "maximum": render_options.MAX_NUMBER,
                "maxLength": render_options.MAX_VALUE_CHARS,
                "maxItems": render_options.MAX_LIST_ITEMS,
                "items": {
                    "type": list(_SCALAR),
                    "minimum": -render_options.MAX_NUMBER,
                    "maximum": render_options.MAX_NUMBER,
                    "maxLength": render_options.MAX_LIST_ITEM_CHARS,
                },
            },
        }
    ),
]


class AdapterHyperparameters(BaseModel):
    """Shape and training of the adapter, but for its rank, which has another name in flat lists: `lora_r`."""

    lora_alpha: int = Field(
        32, ge=1, le=1024, description="The adapter counts `lora_alpha / lora_r` times.", examples=[32]
    )
    lora_dropout: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Share of the adapter's inputs that are dropped in training; 0 is fastest.",
        examples=[0.05],
    )
    target_modules: TargetModules = Field(
        ALL_LINEAR,
        description="Ends of module names that get an adapter, or `all-linear`: every linear one but the output head.",
        examples=["all-linear", ["q_proj", "v_proj"]],
    )
    # Kalajdzievski 2023, arXiv:2312.03732.
    use_rslora: bool = Field(
        False, description="Have the adapter count `lora_alpha / sqrt(lora_r)` times (rsLoRA).", examples=[False]
    )
    # Liu et al. 2024, arXiv:2402.09353.
    use_dora: bool = Field(
        False, description="Learn magnitude and direction of the weights apart (DoRA).", examples=[False]
    )
    # Hayou et al. 2024, arXiv:2402.12354.
    loraplus_lr_ratio: float | None = Field(
        None,
        ge=1.0,
        le=64.0,
        description="Learning rate of the adapter's B over that of its A (LoRA+); by default they are the same.",
        examples=[16.0],
    )


# The fields of the last base are the first.
class LoraSettings(AdapterHyperparameters, _Rank):
    """Shape of the adapter (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def serving_fields(self) -> dict[str, Any]:
        """The fields of PEFT's `adapter_config.json` that not every kind of engine can serve."""
        return {"r": self.r, "use_dora": self.use_dora}

    @property
    def named_modules(self) -> tuple[str, ...]:
        """Names in `target_modules`, where it isn't a word for all of them."""
        return () if self.target_modules == ALL_LINEAR else tuple(self.target_modules)


class RunHyperparameters(BaseModel):
    """Hyperparameters of a run: its steps, its rows, its workers, its loss.

    The one place for a hyperparameter's type, default, limits and words: the API's request is made of these fields, and
    the options of both command lines are made from them. Descriptions are for all of these, so they say "by default"
    rather than "null" or "None".
    """

    learning_rate: float = Field(
        2e-4, ge=MIN_LEARNING_RATE, le=MAX_LEARNING_RATE, description="Peak learning rate.", examples=[2e-4]
    )
    num_epochs: Annotated[int, UpperBound("max_num_epochs")] = Field(
        3, ge=1, description="Passes over the dataset.", examples=[3]
    )
    batch_size: Annotated[int, UpperBound("max_batch_size")] = Field(
        4,
        ge=1,
        description="Rows in one forward pass, over all workers; a GPU divides the rows of a step anew, by "
        "its memory (`micro_batch_tokens`).",
        examples=[4],
    )
    max_length: RowTokens = Field(
        DEFAULT_ROW_TOKENS,
        ge=MIN_ROW_TOKENS,
        description="Tokens in one row, prompt and completion; `long_rows` says what becomes of longer ones.",
        examples=[DEFAULT_ROW_TOKENS],
    )
    long_rows: LongRows = Field(
        "cut",
        description="Rows with more than `max_length` tokens: `cut` them, so that they lose the end of the answer with "
        "its end-of-turn token, `drop` them, `split` them into several (text anywhere, conversations between turns, "
        "each behind the system message), or `fail` before any training. They are counted either way.",
        examples=["cut"],
    )
    chat_template_kwargs: ChatTemplateKwargs = Field(
        {},
        description="Values of the chat template's variables, such as `enable_thinking`. The adapter keeps them: it is "
        "asked and exported with them, and a request may override them.",
        examples=[{"enable_thinking": False}],
    )
    special_tokens: SpecialTokens = Field(
        "auto",
        description="Strings of special tokens in rows of plain text, such as `<|im_end|>`: `text` encodes them as the "
        "text that they are, `tokens` as tokens, for rows that were rendered already. `auto` is `tokens` where "
        "at least half of the rows look rendered, and says so, else `text`; the job then has what was found. In "
        "messages they are always text.",
        examples=["auto"],
    )
    gradient_accumulation_steps: int = Field(
        1,
        ge=1,
        le=64,
        description="Forward passes whose gradients make one optimizer step of `batch_size` times as many rows.",
        examples=[1],
    )
    micro_batch_tokens: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Tokens in one forward pass of a worker; a longer row has one for itself. What is learned doesn't "
        "depend on it, but for rounding. By default as many as a GPU's memory has room for, and on a CPU those of "
        "`batch_size` rows.",
        examples=[None],
    )
    warmup_ratio: float = Field(
        0.06,
        ge=0.0,
        le=0.5,
        description="Share of the steps in which the learning rate rises to its peak.",
        examples=[0.06],
    )
    weight_decay: float = Field(
        0.0, ge=0.0, le=1.0, description="Decay of the adapter's weights (AdamW).", examples=[0.0]
    )
    lr_scheduler: LrScheduler = Field(
        "cosine", description="How the learning rate goes on after its rise.", examples=["cosine"]
    )
    max_grad_norm: float = Field(
        1.0, gt=0.0, description="Norm that the gradient of a step is cut to where it is longer.", examples=[1.0]
    )
    validation_split: float = Field(
        0.1,
        ge=0.0,
        le=0.5,
        description="Share of the rows held out for evaluation; not together with a validation dataset.",
        examples=[0.1],
    )
    eval_steps: int | None = Field(
        None,
        ge=1,
        description="Optimizer steps between evaluations, beside those after each epoch; by default no others.",
        examples=[50],
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Evaluations without a better loss after which the run ends; by default never. Needs rows to "
        "evaluate on.",
        examples=[3],
    )
    max_train_time_s: float | None = Field(
        None,
        gt=0.0,
        le=MAX_TRAIN_TIME_S,
        description="Seconds of training, evaluations included, after which the run ends with what it has learned; by "
        "default never.",
        examples=[3600.0],
    )
    num_workers: int | None = Field(
        None,
        ge=1,
        le=MAX_NUM_WORKERS,
        description="Ray Train workers; by default what the server is set to (SIENN_TRAINING_NUM_WORKERS).",
        examples=[None],
    )
    min_workers: int | None = Field(
        None,
        ge=1,
        le=MAX_NUM_WORKERS,
        description="Workers that suffice when nodes are missing or get lost, `num_workers` at the most; by default as "
        "many as those.",
        examples=[1],
    )
    precision: Precision = Field(
        "auto",
        description="Of the base model's products: `auto` is bfloat16 where the hardware is fast at it, and float16 on "
        "GPUs that are fast at that alone (Volta, Turing).",
        examples=["auto"],
    )
    # Dettmers et al. 2023, arXiv:2305.14314.
    quantization: Quantization | None = Field(
        None,
        description="`nf4` keeps the base model in 4 bits (QLoRA); not together with `sharding: always`.",
        examples=[None],
    )
    gradient_checkpointing: bool | None = Field(
        None,
        description="Compute activations twice to save memory; by default where memory asks for it.",
        examples=[None],
    )
    torch_compile: bool = Field(
        False, description="Compile the base model's layers; pays off in long runs only.", examples=[False]
    )
    # FSDP2.
    sharding: Sharding = Field(
        "auto",
        description="Share the base model out among the workers; `auto` does where it doesn't fit one GPU.",
        examples=["auto"],
    )
    method: MethodName = Field(
        "auto",
        description="Loss that is learned by: `sft` for completions; `dpo`, `ipo`, `orpo`, `simpo` or `kto` for "
        "preferences; `kto` for answers with a label. `auto` is `sft`, `dpo` or `kto`, as the rows are.",
        examples=["auto"],
    )
    # Rafailov et al. 2023, arXiv:2305.18290.
    dpo_beta: float = Field(
        0.1,
        gt=0.0,
        le=10.0,
        description="How close training on preferences stays to the model that it starts from (DPO).",
        examples=[0.1],
    )
    # Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO".
    dpo_label_smoothing: float = Field(
        0.0,
        ge=0.0,
        lt=0.5,
        description="Share of preferences that are expected to be the wrong way around (conservative DPO).",
        examples=[0.0],
    )
    # Azar et al. 2023, arXiv:2310.12036; the paper's tau.
    ipo_beta: float = Field(
        0.1,
        gt=0.0,
        le=10.0,
        description="How close training on preferences stays to the model that it starts from (IPO): the chosen answer "
        "is to gain `1 / (2 * ipo_beta)` nats per token over the rejected one.",
        examples=[0.1],
    )
    # Ethayarajh et al. 2024, arXiv:2402.01306.
    kto_beta: float = Field(
        0.1,
        gt=0.0,
        le=10.0,
        description="How close training on labelled answers stays to the model that it starts from (KTO).",
        examples=[0.1],
    )
    kto_desirable_weight: float = Field(
        1.0, gt=0.0, le=100.0, description="Weight of the losses of desirable answers (KTO).", examples=[1.0]
    )
    kto_undesirable_weight: float = Field(
        1.0, gt=0.0, le=100.0, description="Weight of the losses of undesirable answers (KTO).", examples=[1.0]
    )
    # Hong et al. 2024, arXiv:2403.07691.
    orpo_lambda: float = Field(
        0.1,
        gt=0.0,
        le=10.0,
        description="Weight of the odds ratio beside the chosen answer's likelihood (ORPO).",
        examples=[0.1],
    )
    # Meng et al. 2024, arXiv:2405.14734.
    simpo_beta: float = Field(
        2.0, gt=0.0, le=100.0, description="Scale of the rewards, log-probabilities per token (SimPO).", examples=[2.0]
    )
    simpo_gamma_beta_ratio: float = Field(
        0.5,
        ge=0.0,
        le=10.0,
        description="Nats per token by which the chosen answer is to be ahead of the rejected one (SimPO's gamma over "
        "its beta).",
        examples=[0.5],
    )
    seed: int = Field(42, ge=0, lt=2**31, description="Seed of initial weights, order and dropout.", examples=[42])


class TrainingConfig(RunHyperparameters):
    """Hyperparameters of one fine-tune; frozen, so that a resumed run is the run that was started.

    Every field but the base model has a default, so that records of earlier versions can be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    # The commit of its weights, resolved when the job was submitted; None where none is known, as of earlier jobs.
    base_model_revision: str | None = None
    lora: LoraSettings = LoraSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_workers is not None and self.min_workers > (self.num_workers or MAX_NUM_WORKERS):
            raise ValueError(f"min_workers={self.min_workers} is more than num_workers={self.num_workers}")
        if self.quantization is not None and self.sharding == "always":
            raise ValueError(
                f"a base model with quantization={self.quantization} can't be shared out; leave out sharding=always, "
                "or quantization"
            )
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # variables of the chat template are a dict, which has none

    def pinned(self, revision: str | None) -> Self:
        """Return the same with the base model at a commit."""
        return self.model_copy(update={"base_model_revision": revision})

    def settled(self, special_tokens: SpecialTokens) -> Self:
        """Return the same with what was found out of how special tokens in plain text are meant."""
        return self.model_copy(update={"special_tokens": special_tokens})

    @property
    def render_options(self) -> RenderOptions:
        """Options of how rows become text."""
        variables = TemplateVariables.of(self.chat_template_kwargs)
        return RenderOptions(variables, "tokens" if self.special_tokens == "tokens" else "text")

    @property
    def is_auto(self) -> bool:
        """Return whether nobody has said how special tokens in plain text are meant."""
        return self.special_tokens == "auto"

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step, over all workers."""
        return self.batch_size * self.gradient_accumulation_steps
