"""Ray Data: read a dataset's rows from storage, render and tokenize them, and hold some out for evaluation."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.exceptions import RayTaskError

from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.tokenization import tokenize_row
from sienn_ray.errors import InvalidDatasetError, SiennError
from sienn_ray.storage import Storage

_TOKENIZED_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class TokenizedDatasets:
    """What a run trains on and what it is evaluated on, both in the object store."""

    train: Any
    evaluation: Any | None
    num_train_rows: int
    num_eval_rows: int
    num_dropped_rows: int


@dataclass(frozen=True)
class RowSelection:
    """Some of a dataset's rows, by number.

    Args:
        rows: Their numbers, or those of all the others.
        is_inverted: Which of the two.
    """

    rows: frozenset[int] = frozenset()
    is_inverted: bool = True

    def __contains__(self, row: int) -> bool:
        return (row in self.rows) is not self.is_inverted


ALL_ROWS = RowSelection()


def held_out_rows(num_rows: int, validation_split: float, seed: int) -> frozenset[int]:
    """Row numbers for evaluation: the share asked for, at least one of two rows, the same for the same seed."""
    if validation_split == 0.0 or num_rows < 2:
        return frozenset()
    count = min(max(1, round(num_rows * validation_split)), num_rows - 1)
    return frozenset(random.Random(seed).sample(range(num_rows), count))  # noqa: S311


def tokenize_dataset(
    storage: Storage,
    rows_key: str,
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    max_length: int,
    validation_split: float,
    seed: int,
    validation_rows_key: str | None = None,
) -> TokenizedDatasets:
    """Tokenize a dataset's rows on the cluster.

    The result is materialized: training workers may take every CPU of the cluster, and a pipeline that still had work
    to do would then wait for ever.

    Args:
        storage: Where the rows are.
        rows_key: Rows to train on.
        tokenizer: The base model's.
        prompt_format: How rows become text.
        max_length: Tokens of a row.
        validation_split: Share of the rows to hold out for evaluation; ignored with `validation_rows_key`.
        seed: Of the choice of these rows.
        validation_rows_key: Rows to evaluate on; nothing is held out of the others then.

    Raises:
        InvalidDatasetError: Every row's prompt is longer than `max_length`, in either dataset.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False  # workers would draw them into the job's log, at every evaluation
    context.raise_original_map_exception = True  # or our own errors would come as Ray's, with a traceback as message
    tokenized = partial(_tokenized, storage, tokenizer=tokenizer, prompt_format=prompt_format, max_length=max_length)
    num_rows = _num_rows(storage, rows_key)
    if validation_rows_key is not None:
        num_rows += _num_rows(storage, validation_rows_key)
        train, evaluation = tokenized(rows_key, ALL_ROWS), tokenized(validation_rows_key, ALL_ROWS)
    else:
        held_out = held_out_rows(num_rows, validation_split, seed)
        train = tokenized(rows_key, RowSelection(held_out))
        evaluation = tokenized(rows_key, RowSelection(held_out, is_inverted=False)) if held_out else None
    num_train, num_eval = train.count(), evaluation.count() if evaluation is not None else 0
    check_room(num_train, "dataset", max_length)
    if validation_rows_key is not None:
        check_room(num_eval, "validation dataset", max_length)
    return TokenizedDatasets(
        train,
        evaluation if num_eval else None,
        num_train_rows=num_train,
        num_eval_rows=num_eval,
        num_dropped_rows=num_rows - num_train - num_eval,
    )


def check_room(num_rows: int, name: str, max_length: int) -> None:
    """Refuse a dataset that no row is left of.

    Raises:
        InvalidDatasetError: None is.
    """
    if num_rows == 0:
        raise InvalidDatasetError(
            f"no row of the {name} has room for its answer: every prompt fills max_length={max_length} tokens; raise "
            "max_length (up to 2048) or shorten the prompts"
        )


def _num_rows(storage: Storage, rows_key: str) -> int:
    num_rows: int = pq.read_metadata(storage.path(rows_key), filesystem=storage.arrow_filesystem()).num_rows
    return num_rows


def _tokenized(storage: Storage, rows_key: str, wanted: RowSelection, **options: Any) -> Any:
    """The wanted rows, tokenized, in the object store."""
    rows = ray.data.read_parquet(storage.path(rows_key), filesystem=storage.arrow_filesystem())
    function = partial(tokenize_batch, wanted=wanted, **options)
    try:
        return rows.map_batches(function, batch_format="pyarrow", batch_size=1024).materialize()
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, SiennError) else error from None


def tokenize_batch(
    batch: pa.Table, *, wanted: RowSelection, tokenizer: Any, prompt_format: PromptFormat, max_length: int
) -> pa.Table:
    """Tokenize the wanted rows of a table, but for those whose prompt leaves no room for an answer."""
    rows = [
        tokenize_row(tokenizer, prompt_format, messages=row["messages"], text=row["text"], max_length=max_length)
        for row in batch.to_pylist()
        if row["row"] in wanted
    ]
    kept = [row for row in rows if row is not None]
    columns = [[row.input_ids for row in kept], [row.labels for row in kept]]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, _TOKENIZED_SCHEMA, strict=True)],
        schema=_TOKENIZED_SCHEMA,
    )
