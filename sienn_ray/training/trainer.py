"""One fine-tune from its dataset to the published adapter: the driver's side of Ray Data and Ray Train."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.data
import ray.train
from ray.train.torch import TorchTrainer

from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.datasets.pipeline import TokenizedDatasets, tokenize_dataset
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import SiennError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training import checkpoint
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.failures import explain
from sienn_ray.training.loop import LoopSpec, train_loop
from sienn_ray.training.reporting import Phase, Progress, Reporter
from sienn_ray.training.resources import WorkerResources, alive_nodes, choose_resources, wait_until_placeable
from sienn_ray.training.steps import StepPlan

CHECKPOINTS_KEY = "checkpoints"
# The last checkpoint, and the one before in case that one is being replaced when everything stops.
_CHECKPOINTS_KEPT = 2
# Ray Train's default is to try for ever, also when the workers can never be placed.
_CONTROLLER_FAILURES = 2


@dataclass(frozen=True)
class Run:
    """What to train, on what, and where the adapter goes."""

    job_id: str
    config: TrainingConfig
    rows_key: str
    is_text: bool
    adapter_key: str
    # Rows to evaluate on, instead of a share of the others.
    validation_rows_key: str | None = None


def run_training(run: Run, settings: Settings, reporter: Reporter) -> dict[str, Any]:
    """Train and publish; resumes from the last checkpoint when an earlier attempt left one.

    Returns:
        Facts about the run: losses, rows, tokens, seconds, workers.

    Raises:
        SiennError: The run failed for a reason that a person can act on.
    """
    started = time.monotonic()
    storage = Storage(settings.storage_url)
    reporter.report(Progress.of_phase(Phase.LOADING_DATA, "Reading and tokenizing the dataset"))
    tokenizer = load_tokenizer(local_folder(run.config.base_model, settings))
    prompt_format = PromptFormat.for_text() if run.is_text else PromptFormat.for_chat(tokenizer)
    datasets = tokenize_dataset(
        storage,
        run.rows_key,
        tokenizer,
        prompt_format,
        max_length=run.config.max_length,
        validation_split=run.config.validation_split,
        seed=run.config.seed,
        validation_rows_key=run.validation_rows_key,
    )
    max_workers = min(datasets.num_train_rows, run.config.rows_per_step)
    resources = choose_resources(settings, run.config.num_workers, max_workers, alive_nodes())
    reporter.report(Progress.of_phase(Phase.WAITING_FOR_RESOURCES, f"Starting {resources}"))
    wait_until_placeable(resources, settings.training_start_timeout_s)
    trained = _fit(run, settings, reporter, storage, datasets, tokenizer.pad_token_id, resources)
    reporter.report(Progress.of_phase(Phase.SAVING, "Publishing the adapter"))
    with tempfile.TemporaryDirectory(prefix="sienn-adapter-") as folder:
        state = _assemble(trained, tokenizer, prompt_format, Path(folder))
        manifest = storage.publish(Path(folder), run.adapter_key)
    return {
        **_losses(state),
        "num_train_rows": datasets.num_train_rows,
        "num_eval_rows": datasets.num_eval_rows,
        "num_dropped_rows": datasets.num_dropped_rows,
        "num_tokens": state.tokens_done,
        "tokens_per_s": round(state.tokens_done / max(state.train_seconds, 1e-9), 1),
        "train_seconds": round(state.train_seconds, 1),
        "total_seconds": round(time.monotonic() - started, 1),
        "num_workers": resources.num_workers,
        "rows_per_step": StepPlan.of(run.config, resources.num_workers).rows_per_step,
        "use_gpu": resources.use_gpu,
        "adapter_size_bytes": manifest.size_bytes,
    }


def delete_checkpoints(run: Run, settings: Settings) -> None:
    """Free the checkpoints of a run that needn't be resumed any more."""
    Storage(settings.storage_url).delete(f"{CHECKPOINTS_KEY}/{run.job_id}")


def _fit(
    run: Run,
    settings: Settings,
    reporter: Reporter,
    storage: Storage,
    datasets: TokenizedDatasets,
    pad_token_id: int,
    resources: WorkerResources,
) -> ray.train.Checkpoint:
    """Run the loop on Ray Train's workers and return the last checkpoint."""
    spec = LoopSpec(
        run.config,
        settings,
        reporter,
        pad_token_id,
        num_train_rows=datasets.num_train_rows,
        num_eval_rows=datasets.num_eval_rows,
    )
    shards = {"train": datasets.train}
    if datasets.evaluation is not None:
        shards["evaluation"] = datasets.evaluation
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"spec": spec},
        datasets=shards,
        # Workers share the evaluation's rows out themselves, and must see them in the same order for that.
        dataset_config=ray.train.DataConfig(
            datasets_to_split=["train"], execution_options=ray.data.ExecutionOptions(preserve_order=True)
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.use_gpu,
            resources_per_worker=resources.per_worker,
        ),
        # The same name on the same storage finds the checkpoints of an earlier attempt: that is how a run resumes.
        run_config=ray.train.RunConfig(
            name=run.job_id,
            storage_path=storage.path(CHECKPOINTS_KEY),
            storage_filesystem=storage.arrow_filesystem(),
            failure_config=ray.train.FailureConfig(
                max_failures=settings.training_max_failures, controller_failure_limit=_CONTROLLER_FAILURES
            ),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=_CHECKPOINTS_KEPT),
        ),
    )
    # Ray Train gives up placing the workers after this long, each time anew.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(
        settings.training_start_timeout_s / (_CONTROLLER_FAILURES + 1)
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise explain(error, run.config, settings) from error
    if isinstance(result.return_value, SiennError):
        raise result.return_value
    return result.checkpoint


def _assemble(
    trained: ray.train.Checkpoint, tokenizer: Any, prompt_format: PromptFormat, folder: Path
) -> checkpoint.RunState:
    """Put the adapter's files together: weights, configuration, tokenizer, prompt format."""
    with trained.as_directory() as source:
        for name in (checkpoint.ADAPTER_WEIGHTS, checkpoint.ADAPTER_CONFIG):
            shutil.copyfile(Path(source) / name, folder / name)
        state = checkpoint.read_state(Path(source))
    if prompt_format.chat_template is not None:
        tokenizer.chat_template = prompt_format.chat_template
    # The template goes into tokenizer_config.json, so that the adapter is the five files which users expect.
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens_map(tokenizer), indent=2))
    (folder / PROMPT_FORMAT_FILE).write_text(prompt_format.to_json())
    return state


def special_tokens_map(tokenizer: Any) -> dict[str, Any]:
    """Special tokens by name, as transformers wrote them to `special_tokens_map.json` up to its version 4."""
    return {
        name: [str(token) for token in value] if isinstance(value, list | tuple) else str(value)
        for name, value in tokenizer.special_tokens_map.items()
    }


def _losses(state: checkpoint.RunState) -> dict[str, Any]:
    last = state.history[-1]
    return {
        "train_loss": _rounded(last.train_loss),
        "eval_loss": _rounded(last.eval_loss),
        "current_loss": _rounded(last.train_loss),
        "loss_history": [
            {"epoch": record.epoch, "train_loss": _rounded(record.train_loss), "eval_loss": _rounded(record.eval_loss)}
            for record in state.history
        ],
    }


def _rounded(loss: float | None) -> float | None:
    return None if loss is None else round(loss, 4)
