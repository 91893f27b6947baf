"""Start a fine-tune, and watch it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from sienn_ray.catalog import CATALOG
from sienn_ray.cli.client import DatasetId, JobId, call, end, of
from sienn_ray.cli.output import console, print_line
from sienn_ray.training.config import ALL_LINEAR, LoraSettings, TrainingConfig

_POLL_S = 1.0
_SIGNS = ("ge", "gt", "le", "lt")
_ENDS = ("paused", "completed", "failed", "cancelled")


def _of_config(name: str, words: str, model: type[TrainingConfig] | type[LoraSettings] = TrainingConfig) -> Any:
    """An option for a hyperparameter, which has its limits and default from the training configuration."""
    field = model.model_fields[name]
    # Exclusive ones are as good as inclusive ones in words that fit into a column.
    limits = {sign[0]: getattr(limit, sign) for limit in field.metadata for sign in _SIGNS if hasattr(limit, sign)}
    default = "" if field.default is None else f"; {field.default} by default"
    span = f"{limits['g']} to {limits['l']}" if "l" in limits else f"{limits['g']} or more"
    return typer.Option(help=f"{words}, {span}{default}.")


def train(
    dataset_id: DatasetId,
    base_model: Annotated[str, typer.Option(help="Hub id of the base model.")] = CATALOG[0].id,
    learning_rate: Annotated[float | None, _of_config("learning_rate", "Peak learning rate")] = None,
    num_epochs: Annotated[int | None, _of_config("num_epochs", "Passes over the dataset")] = None,
    batch_size: Annotated[int | None, _of_config("batch_size", "Rows in one forward pass")] = None,
    max_length: Annotated[int | None, _of_config("max_length", "Tokens in one row")] = None,
    gradient_accumulation_steps: Annotated[
        int | None, _of_config("gradient_accumulation_steps", "Forward passes in one optimizer step")
    ] = None,
    warmup_ratio: Annotated[float | None, _of_config("warmup_ratio", "Share of the steps with a rising rate")] = None,
    weight_decay: Annotated[float | None, _of_config("weight_decay", "Decay of the adapter's weights")] = None,
    lr_scheduler: Annotated[str | None, typer.Option(help="cosine, linear or constant.")] = None,
    seed: Annotated[int | None, _of_config("seed", "Seed of weights, order and dropout")] = None,
    validation_split: Annotated[float | None, _of_config("validation_split", "Share of the rows held out")] = None,
    validation_dataset_id: Annotated[str | None, typer.Option(help="Evaluate on this dataset instead.")] = None,
    eval_steps: Annotated[int | None, _of_config("eval_steps", "Steps between evaluations")] = None,
    early_stopping_patience: Annotated[
        int | None, _of_config("early_stopping_patience", "Evaluations that may bring nothing before it ends")
    ] = None,
    max_train_time_s: Annotated[float | None, _of_config("max_train_time_s", "Seconds after which it ends")] = None,
    num_workers: Annotated[int | None, _of_config("num_workers", "Ray Train workers")] = None,
    min_workers: Annotated[int | None, _of_config("min_workers", "Workers that suffice")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    quantization: Annotated[str | None, typer.Option(help="nf4: the base model in 4 bits.")] = None,
    gradient_checkpointing: Annotated[bool | None, typer.Option(help="Compute activations twice.")] = None,
    torch_compile: Annotated[bool | None, typer.Option(help="Compile the base model's layers.")] = None,
    sharding: Annotated[str | None, typer.Option(help="auto, never or always share the base model out.")] = None,
    dpo_beta: Annotated[float | None, _of_config("dpo_beta", "How close preferences keep to the base model")] = None,
    lora_r: Annotated[int | None, _of_config("r", "Rank of the adapter", LoraSettings)] = None,
    lora_alpha: Annotated[int | None, _of_config("lora_alpha", "It counts alpha / r times", LoraSettings)] = None,
    lora_dropout: Annotated[float | None, _of_config("lora_dropout", "Dropout of its inputs", LoraSettings)] = None,
    target_modules: Annotated[
        str | None, typer.Option(help=f"Ends of module names, with commas between them, or {ALL_LINEAR}.")
    ] = None,
    use_rslora: Annotated[bool | None, typer.Option(help="Have it count alpha / sqrt(r) times.")] = None,
    use_dora: Annotated[bool | None, typer.Option(help="Learn magnitude and direction apart.")] = None,
    loraplus_lr_ratio: Annotated[
        float | None, _of_config("loraplus_lr_ratio", "Learning rate of B over that of A", LoraSettings)
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label, KEY=VALUE; may be given more than once.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same command with the same key makes no second job.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Watch it until it ends.")] = True,
) -> None:
    """Start a fine-tune."""
    given = {
        "learning_rate": learning_rate,
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "max_length": max_length,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "warmup_ratio": warmup_ratio,
        "weight_decay": weight_decay,
        "lr_scheduler": lr_scheduler,
        "seed": seed,
        "validation_split": validation_split,
        "validation_dataset_id": validation_dataset_id,
        "eval_steps": eval_steps,
        "early_stopping_patience": early_stopping_patience,
        "max_train_time_s": max_train_time_s,
        "num_workers": num_workers,
        "min_workers": min_workers,
        "precision": precision,
        "quantization": quantization,
        "gradient_checkpointing": gradient_checkpointing,
        "torch_compile": torch_compile,
        "sharding": sharding,
        "dpo_beta": dpo_beta,
        "lora_r": lora_r,
        "lora_alpha": lora_alpha,
        "lora_dropout": lora_dropout,
        "target_modules": _modules(target_modules),
        "use_rslora": use_rslora,
        "use_dora": use_dora,
        "loraplus_lr_ratio": loraplus_lr_ratio,
        "name": name,
        "labels": _labels(label or []),
    }
    body = {field: value for field, value in given.items() if value is not None}
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    body |= {"dataset_id": dataset_id, "model_name": base_model}
    job_id = call("POST", "/api/start-finetuning", json=body, headers=headers)["job_id"]
    print_line(f"job_id: {job_id}")
    if wait:
        watch(job_id)


def _modules(text: str | None) -> str | list[str] | None:
    return text if text in {None, ALL_LINEAR} else str(text).split(",")


def _labels(texts: list[str]) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in texts]
    for text, (_, sign, _) in zip(texts, pairs, strict=True):
        if not sign:
            end(f"label '{text}' is not of the form KEY=VALUE")
    return {key: value for key, _, value in pairs} or None


def watch(job_id: JobId) -> None:
    """Follow a job until it ends or is paused: epoch, loss and time left."""
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"), console=console,
    ) as bar:  # fmt: skip
        row = bar.add_task("waiting", total=100, facts="")
        while True:
            job = call("GET", f"/api/training-status/{of(job_id)}")
            bar.update(row, completed=job["progress"], description=job["message"][:60], facts=facts(job["meta"]))
            if job["status"] in _ENDS:
                break
            time.sleep(_POLL_S)
    if job["status"] == "failed":
        end(f"the job failed ({job['meta'].get('failure_reason')}): {job['message']}")
    if job["status"] == "paused":
        end("the job is paused; `sienn resume` has it go on")
    if job["status"] == "cancelled":
        end("the job was cancelled; `sienn retry` puts it back into the queue")


def facts(meta: dict[str, Any]) -> str:
    """Loss, speed and time left of a running job, as far as they are known."""
    loss, speed, left = (meta.get(name) for name in ("current_loss", "tokens_per_s", "time_left_s"))
    parts = [
        f"epoch {meta['current_epoch']}/{meta['total_epochs']}" if meta["current_epoch"] else "",
        f"loss {loss:.3f}" if loss is not None else "",
        f"eval loss {meta['eval_loss']:.3f}" if meta.get("eval_loss") is not None else "",
        f"{speed:.0f} tokens/s" if speed else "",
        f"{int(left) // 60}:{int(left) % 60:02d} left" if left else "",
    ]
    return "  ".join(part for part in parts if part)
