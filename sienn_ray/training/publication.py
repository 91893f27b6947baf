"""Put the files of an adapter together: weights, tokenizer, prompt format, and what it takes to repeat the run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import ArtifactError, TrainingError
from sienn_ray.hub import commit_of
from sienn_ray.storage import Storage
from sienn_ray.training import model_card, record
from sienn_ray.training.checkpoint_files import ADAPTER_WEIGHTS, START_SOURCE, copy_best_adapter
from sienn_ray.training.run_state import RunState, read_state
from sienn_ray.training.spec import BaseModelFacts, LoopResult, Run, RunRows


def base_model_facts(folder: Path, tokenizer: Any, prompt_format: PromptFormat) -> BaseModelFacts:
    """Collect what is published of the base model, on a node that has it.

    The program that publishes needs neither the base model nor the hub then.

    Args:
        folder: The base model's.
        tokenizer: Its tokenizer; gets the chat template of the prompt format.
        prompt_format: The format that the rows were rendered in.

    Raises:
        ArtifactError: Weight files are missing.
    """
    if prompt_format.bound_template is not None:
        tokenizer.chat_template = prompt_format.bound_template
    with tempfile.TemporaryDirectory(prefix="sienn-tokenizer-") as name:
        target = Path(name)
        # The template goes into tokenizer_config.json, so that the adapter is the five files which users expect.
        tokenizer.save_pretrained(target, save_jinja_files=False)
        files = {path.name: path.read_bytes() for path in sorted(target.iterdir()) if path.is_file()}
    files["special_tokens_map.json"] = json.dumps(special_tokens_map(tokenizer), indent=2).encode()
    files[PROMPT_FORMAT_FILE] = prompt_format.to_json().encode()
    return BaseModelFacts(commit_of(folder), record.weights_sha256(folder), files)


def start_facts(storage: Storage, start_key: str | None) -> record.StartFacts | None:
    """Return what is published of the adapter that a run started from; None where that was the base model.

    Raises:
        OutOfReachError: Storage can't be asked.
    """
    if start_key is None:
        return None
    try:
        hashes = {entry.name: entry.sha256 for entry in storage.manifest(start_key).files}
        source = json.loads(storage.read_bytes(f"{start_key}/{START_SOURCE}")) if START_SOURCE in hashes else {}
    except (ArtifactError, FileNotFoundError):  # deleted meanwhile; the run went on from a checkpoint
        return record.StartFacts()
    return record.StartFacts(url=source.get("url"), sha256=hashes.get(ADAPTER_WEIGHTS))


def assemble(
    run: Run,
    trained: Path,
    folder: Path,
    result: LoopResult,
    rows: RunRows,
    start: record.StartFacts | None = None,
) -> RunState:
    """Write an adapter's files.

    Args:
        run: The run that made it.
        trained: Its last checkpoint.
        folder: Where the files go.
        result: How the loop ended.
        rows: What it was trained on.
        start: The adapter that it started from; None where that was the base model.

    Returns:
        How far the run had come.

    Raises:
        TrainingError: The first worker has said nothing of the base model.
    """
    base = result.base
    if base is None:
        raise TrainingError("the training worker ended without what is published of the base model; retry the job")
    copy_best_adapter(trained, folder)
    for name, content in base.files.items():
        (folder / name).write_bytes(content)
    state = read_state(trained)
    entry = record.RunRecord(
        job_id=run.job_id,
        name=run.name,
        started_from=run.from_job,
        start=start,
        base_model_revision=base.revision,
        base_model_sha256=base.weights_sha256,
        datasets=run.datasets,
        config=run.config,
        resolved=result.facts,
        versions=record.versions(),
        results=_results(state, rows.num_train, rows.num_eval),
    )
    record.write(folder, entry)
    (folder / model_card.FILE_NAME).write_text(model_card.model_card(entry), encoding="utf-8")
    return state


def special_tokens_map(tokenizer: Any) -> dict[str, Any]:
    """Special tokens by name, as transformers wrote them to `special_tokens_map.json` up to its version 4."""
    return {
        name: [str(token) for token in value] if isinstance(value, list | tuple) else str(value)
        for name, value in tokenizer.special_tokens_map.items()
    }


def _results(state: RunState, num_train_rows: int, num_eval_rows: int) -> record.RunResults:
    published = state.published
    return record.RunResults(
        train_loss=published.train_loss,
        eval_loss=published.eval_loss,
        history=tuple(
            record.Losses(
                epoch=entry.epoch,
                step=entry.step,
                train_loss=entry.train_loss,
                eval_loss=entry.eval_loss,
                train_rewards=entry.train_rewards,
                eval_rewards=entry.eval_rewards,
            )
            for entry in state.history
        ),
        num_steps=state.steps_done,
        num_tokens=state.tokens_done,
        num_train_rows=num_train_rows - state.num_dropped_rows,
        num_eval_rows=num_eval_rows,
        num_dropped_rows=state.num_dropped_rows,
        num_long_rows=state.num_long_rows,
        num_split_rows=state.num_split_rows,
        num_cut_rows=state.num_cut_rows,
        num_cut_tokens=state.num_cut_tokens,
        num_long_eval_rows=state.num_long_eval_rows,
        train_s=round(state.train_seconds, 1),
        best_epoch=state.best_epoch,
        best_step=state.best_step,
    )
