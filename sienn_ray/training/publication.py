"""Put the files of an adapter together: weights, tokenizer, prompt format, and what it takes to repeat the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.settings import Settings
from sienn_ray.training import checkpoint, model_card, record
from sienn_ray.training.run_state import RunState, read_state
from sienn_ray.training.spec import LoopResult, Run, RunRows


def assemble(run: Run, settings: Settings, trained: Path, folder: Path, result: LoopResult, rows: RunRows) -> RunState:
    """Write an adapter's files.

    Args:
        run: The run that made it.
        settings: Where the base model is.
        trained: Its last checkpoint.
        folder: Where the files go.
        result: How the loop ended.
        rows: What it was trained on.

    Returns:
        How far the run had come.
    """
    base_folder = local_folder(run.config.base_model, settings)
    tokenizer: Any = load_tokenizer(base_folder)
    prompt_format = PromptFormat.for_rows(run.row_kind, tokenizer)
    checkpoint.copy_best_adapter(trained, folder)
    if prompt_format.chat_template is not None:
        tokenizer.chat_template = prompt_format.chat_template
    # The template goes into tokenizer_config.json, so that the adapter is the five files which users expect.
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens_map(tokenizer), indent=2))
    (folder / PROMPT_FORMAT_FILE).write_text(prompt_format.to_json())
    state = read_state(trained)
    entry = record.RunRecord(
        job_id=run.job_id,
        name=run.name,
        base_model_revision=record.base_model_revision(base_folder),
        base_model_sha256=record.weights_sha256(base_folder),
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
            record.Losses(epoch=entry.epoch, step=entry.step, train_loss=entry.train_loss, eval_loss=entry.eval_loss)
            for entry in state.history
        ),
        num_steps=state.steps_done,
        num_tokens=state.tokens_done,
        num_train_rows=num_train_rows - state.num_dropped_rows,
        num_eval_rows=num_eval_rows,
        num_dropped_rows=state.num_dropped_rows,
        train_s=round(state.train_seconds, 1),
        best_epoch=state.best_epoch,
        best_step=state.best_step,
    )
