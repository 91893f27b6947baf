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
) -> TokenizedDatasets:
    """Tokenize a dataset's rows on the cluster.

    The result is materialized: training workers may take every CPU of the cluster, and a pipeline that still had work
    to do would then wait for ever.

    Raises:
        InvalidDatasetError: Every row's prompt is longer than `max_length`.
    """
    filesystem, path = storage.arrow_filesystem(), storage.path(rows_key)
    num_rows = pq.read_metadata(path, filesystem=filesystem).num_rows
    held_out = held_out_rows(num_rows, validation_split, seed)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True  # or our own errors would come as Ray's, with a traceback as message
    rows = ray.data.read_parquet(path, filesystem=filesystem)

    def tokenized(*, evaluation: bool) -> Any:
        function = partial(
            _tokenize_batch,
            tokenizer=tokenizer,
            prompt_format=prompt_format,
            max_length=max_length,
            held_out=held_out,
            evaluation=evaluation,
        )
        try:
            return rows.map_batches(function, batch_format="pyarrow", batch_size=1024).materialize()
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, SiennError) else error from None

    train = tokenized(evaluation=False)
    evaluation = tokenized(evaluation=True) if held_out else None
    num_train, num_eval = train.count(), evaluation.count() if evaluation is not None else 0
    if num_train == 0:
        raise InvalidDatasetError(
            f"no row has room for its answer: every prompt fills max_length={max_length} tokens; raise max_length "
            "(up to 2048) or shorten the prompts"
        )
    return TokenizedDatasets(
        train,
        evaluation if num_eval else None,
        num_train_rows=num_train,
        num_eval_rows=num_eval,
        num_dropped_rows=num_rows - num_train - num_eval,
    )


def _tokenize_batch(
    batch: pa.Table,
    *,
    tokenizer: Any,
    prompt_format: PromptFormat,
    max_length: int,
    held_out: frozenset[int],
    evaluation: bool,
) -> pa.Table:
    rows = [
        tokenize_row(tokenizer, prompt_format, messages=row["messages"], text=row["text"], max_length=max_length)
        for row in batch.to_pylist()
        if (row["row"] in held_out) is evaluation
    ]
    kept = [row for row in rows if row is not None]
    columns = [[row.input_ids for row in kept], [row.labels for row in kept]]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, _TOKENIZED_SCHEMA, strict=True)],
        schema=_TOKENIZED_SCHEMA,
    )
