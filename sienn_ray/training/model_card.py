"""The README.md of an adapter: a model card that the Hugging Face hub understands.

File names and the job's name are the user's. In the metadata, YAML quotes them; in the text they stand in code spans
only, where nothing is markup, and never in a table, whose cells would end at a `|` even there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from sienn_ray.datasets.schema import RowKind, row_kind
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.methods import Method, words_of
from sienn_ray.training.record import FILE_NAME as RECORD_FILE
from sienn_ray.training.record import DatasetFacts, DatasetRole, Losses, RunRecord

FILE_NAME = "README.md"
Messages = Sequence[Mapping[str, str]]

_GREETING: Messages = ({"role": "user", "content": "Hello! What can you help me with?"},)
_LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_MAX_NAME_CHARS = 255


def model_card(record: RunRecord, *, license: str | None = None, chat_example: Messages | None = None) -> str:
    """Write the card of a run's adapter.

    Args:
        record: The run.
        license: The hub's id of the base model's licence, such as `apache-2.0`, where it is known. Anything that can't
            be such an id is left out, since the hub takes no card with it.
        chat_example: Messages for the example in the card, the last one the user's. They are published with the
            adapter, so rows of the dataset shouldn't be among them unasked.
    """
    sections = (
        _what_it_is(record),
        _how_to_use(record, chat_example or _GREETING),
        _training_data(record),
        _hyperparameters(record),
        _results(record),
        _how_to_repeat(record),
        _versions(record),
    )
    return f"---\n{_metadata(record, license).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(record: RunRecord, license: str | None) -> ModelCardData:
    evaluation = _evaluation(record)
    license_id = (license or "").strip().lower()
    return ModelCardData(
        base_model=record.base_model,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="text-generation",
        license=license_id if _LICENSE_ID.fullmatch(license_id) else None,
        # The first is what PEFT itself puts on a card; the hub finds a base model's adapters by it.
        tags=[f"base_model:adapter:{record.base_model}", "lora", str(record.resolved.method), "transformers"],
        model_name=_title(record) if evaluation else None,
        eval_results=[evaluation] if evaluation else None,
    )


def _evaluation(record: RunRecord) -> EvalResult | None:
    """The loss on rows that were held out, or None where there were none; JSON and YAML have no word for NaN."""
    loss = record.results.eval_loss
    sources = _files(record, "evaluation") or _files(record, "train")
    if loss is None or not math.isfinite(loss) or not sources:
        return None
    return EvalResult(
        task_type="text-generation",
        # The hub wants a data set's id here and refuses most file names.
        dataset_type="custom",
        dataset_name=_printable(sources[0].filename),
        dataset_split="validation",
        metric_type="loss",
        metric_name="Evaluation loss",
        metric_value=round(loss, 4),
    )


def _what_it_is(record: RunRecord) -> str:
    return (
        f"# {_code(_title(record))}\n\n"
        f"A LoRA adapter for {_code(record.base_model)}, made by {words_of(record.resolved.method).name} with "
        f"sienn_ray on {record.created_at:%Y-%m-%d}.{_origin(record)} It is loaded on top of that base model "
        "and can do nothing without it. Apart from its losses below it wasn't evaluated; try it on your own cases "
        "before you rely on it."
    )


def _origin(record: RunRecord) -> str:
    words = _start_words(record)
    return "" if words is None else f" It goes on from {words}, which is part of it."


def _start_words(record: RunRecord) -> str | None:
    """Name the adapter that the run started from; None where that was the base model."""
    if record.started_from is not None:
        return f"the adapter of job {_code(record.started_from)}"
    if record.start is None:
        return None
    return f"the adapter at {_code(record.start.url)}" if record.start.url else "another adapter"


def _how_to_use(record: RunRecord, messages: Messages) -> str:
    is_text = any(row_kind(dataset.format) is RowKind.TEXT for dataset in _files(record, "train"))
    revision = f", revision={record.base_model_revision!r}" if record.base_model_revision else ""
    return "\n".join(
        [
            "## How to use it\n",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'adapter = "."  # this folder, or the id under which it is on the hub',
            f"base_model = AutoModelForCausalLM.from_pretrained({record.base_model!r}{revision})",
            "model = PeftModel.from_pretrained(base_model, adapter)",
            "tokenizer = AutoTokenizer.from_pretrained(adapter)",
            "",
            *(_text_inputs(messages) if is_text else _chat_inputs(messages)),
            "output = model.generate(**inputs.to(model.device), max_new_tokens=200)",
            'print(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
            "```",
        ]
    )


def _chat_inputs(messages: Messages) -> list[str]:
    """Code with the messages as literals: `repr` keeps each on its line, so none can end the block."""
    turns = [f"    {dict(message)!r}," for message in messages]
    options = 'add_generation_prompt=True, return_dict=True, return_tensors="pt"'
    return ["messages = [", *turns, "]", f"inputs = tokenizer.apply_chat_template(messages, {options})"]


def _text_inputs(messages: Messages) -> list[str]:
    text = "\n\n".join(message["content"] for message in messages)
    return [f'inputs = tokenizer({text!r}, return_tensors="pt")']


def _training_data(record: RunRecord) -> str:
    results = record.results
    used = f"Of these, {results.num_train_rows} rows were trained on and {results.num_eval_rows} evaluated on"
    dropped = f"; {results.num_dropped_rows} were left out" if results.num_dropped_rows else ""
    sentences = " ".join([f"{used}{dropped}.", *_long_rows(record)])
    return "\n".join(["## Training data\n", *map(_dataset_line, record.datasets), "", sentences])


def _long_rows(record: RunRecord) -> list[str]:
    """Sentences about rows that were too long, if there were any."""
    results, limit = record.results, f"more than {record.config.max_length} tokens (`max_length`)"
    if record.config.long_rows == "drop":
        fate = "left out"
    elif record.config.long_rows == "split":
        lost = f", but for {results.num_cut_tokens} tokens" if results.num_cut_tokens else ""
        fate = f"split into several examples{lost}"
    else:
        lost = f"{results.num_cut_tokens} tokens were lost, among them the end-of-turn token of each row"
        fate = f"cut: {lost}"
    trained = [f"{results.num_long_rows} rows had {limit} and were {fate}."] if results.num_long_rows else []
    evaluated = f"Of the rows that were evaluated on, {results.num_long_eval_rows} had {limit}."
    return [*trained, evaluated] if results.num_long_eval_rows else trained


def _dataset_line(dataset: DatasetFacts) -> str:
    weight = "" if dataset.weight is None else f"weight {dataset.weight:g}, "
    return (
        f"- {_code(dataset.filename)} ({dataset.purpose}): {dataset.num_rows} rows, {weight}"
        f"format {_code(dataset.format)}, SHA-256 {_code(dataset.sha256)}"
    )


def _hyperparameters(record: RunRecord) -> str:
    others = [method for method in Method if method != record.resolved.method]
    of_others = {name for name in TrainingConfig.model_fields if any(method.owns(name) for method in others)}
    config = record.config.model_dump(mode="json", exclude={"base_model", "lora", *of_others})
    lora = record.config.lora.model_dump(mode="json")
    given = {**{f"lora.{name}": value for name, value in lora.items()}, **config}
    resolved = record.resolved.model_dump(mode="json")
    return "\n\n".join(
        [
            "## Hyperparameters",
            _table(("Hyperparameter", "Value"), _rows(given)),
            "What the service chose or made of them:",
            _table(("Fact", "Value"), _rows(resolved)),
        ]
    )


def _results(record: RunRecord) -> str:
    results = record.results
    seconds = "" if results.train_s is None else f" in {results.train_s:.0f} s"
    rows = [
        (
            f"{entry.epoch}{' (best)' if _is_best(entry, record) else ''}",
            "" if entry.step is None else str(entry.step),
            _loss(entry.train_loss),
            _loss(entry.eval_loss),
            *_preferred(entry, record),
        )
        for entry in results.history
    ]
    header = ["Epoch", "Step", "Training loss", "Evaluation loss"]
    nothing: list[str] = []
    if record.resolved.method.has_rewards:
        header, nothing = [*header, "Reward margin", "Chosen over rejected"], ["", ""]
    rows.append(("published adapter", "", _loss(results.train_loss), _loss(results.eval_loss), *nothing))
    return (
        f"## Results\n\n{results.num_steps} optimizer steps over {results.num_tokens} tokens{seconds}. The loss is "
        f"{words_of(record.resolved.method).loss}; epoch 0 is {_start(record)}.\n\n" + _table(header, rows)
    )


def _preferred(entry: Losses, record: RunRecord) -> tuple[str, ...]:
    """Margin and accuracy of an entry: of the evaluation where there was one, else of training."""
    if not record.resolved.method.has_rewards:
        return ()
    rewards = entry.eval_rewards or entry.train_rewards
    if rewards is None:
        return ("", "")
    return _loss(rewards.margins), "" if rewards.accuracies is None else f"{rewards.accuracies:.0%}"


def _start(record: RunRecord) -> str:
    return "the base model" if _start_words(record) is None else "the adapter that it started from"


def _is_best(entry: Losses, record: RunRecord) -> bool:
    results = record.results
    is_step = results.best_step is None or entry.step is None or entry.step == results.best_step
    return entry.epoch == results.best_epoch and is_step


def _how_to_repeat(record: RunRecord) -> str:
    commit = f"at commit {_code(record.base_model_revision)}" if record.base_model_revision else "of no known commit"
    return "\n".join(
        [
            "## How to repeat it\n",
            f"[`{RECORD_FILE}`]({RECORD_FILE}) has everything that the run depended on.\n",
            "1. Install the versions below.",
            "2. Check that your data files have the hashes above.",
            f"3. Get the base model {_code(record.base_model)} {commit}. The hash over its weight files "
            f"(`sha256sum FILES | sha256sum`, by name) is {_code(record.base_model_sha256)}.",
            *_start_step(record),
            f"{4 if _start_words(record) is None else 5}. Start a fine-tune with the values of `config` (seed "
            f"{record.seed}), on as many workers and threads as `resolved` says.",
            "",
            "On hardware of the same kind the losses agree to rounding; on other hardware they drift apart.",
        ]
    )


def _start_step(record: RunRecord) -> list[str]:
    if (words := _start_words(record)) is None:
        return []
    sha256 = record.start.sha256 if record.start is not None else None
    known = f" The SHA-256 of its `adapter_model.safetensors` is {_code(sha256)}." if sha256 else ""
    return [f"4. Get {words}, to start from.{known}"]


def _versions(record: RunRecord) -> str:
    return "## Versions\n\n" + _table(("Package", "Version"), _rows(record.versions))


def _files(record: RunRecord, role: DatasetRole) -> list[DatasetFacts]:
    return [dataset for dataset in record.datasets if dataset.role == role]


def _title(record: RunRecord) -> str:
    return _printable(record.name or record.job_id)


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of a table; what was left open says nothing and is left out."""
    texts = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if value is not None
    }
    # Hardware and packages name themselves, so a name with a `|` is no attack; it must only not break the table.
    return [(_code(name), _code(text.replace("|", "/"))) for name, text in texts.items()]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _printable(text: str) -> str:
    """The text on one line, without what would hide or turn around its characters."""
    kept = "".join(character for character in text if character.isprintable())[:_MAX_NAME_CHARS]
    return kept.strip() or "unnamed"


def _code(text: str) -> str:
    """A code span, whose fence is longer than any run of backticks in the text (CommonMark 0.31, 6.1)."""
    text = _printable(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    # A space is stripped from either side where both have one.
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"
