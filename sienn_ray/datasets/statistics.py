"""Ray Data: measure every row of a dataset on the cluster, and add the numbers up in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data import TaskPoolStrategy
from ray.exceptions import RayTaskError

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.duplicates import DTYPE, DuplicateFinder
from sienn_ray.datasets.histogram import Histogram
from sienn_ray.datasets.measure import measure_row
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.datasets.stored_rows import CONTENT_COLUMNS, StoredRow
from sienn_ray.errors import SiennError
from sienn_ray.storage import Storage

MAX_DUPLICATE_LINES = 10

_EMPTY_COLUMNS = "empty_columns"
_PASSED_ON = ("row", "line", _EMPTY_COLUMNS)
_BATCH_ROWS = 200
_SLICE_ROWS = 1_000
_MAX_TASKS = 1_000
_MAX_WORKERS = 8


def compute_statistics(storage: Storage, request: StatisticsRequest, tokenizer: Any) -> DatasetStatistics:
    """Measure a dataset's rows with Ray Data; this process is its driver.

    Raises:
        InvalidDatasetError: The base model's chat template can't render a row.
    """
    path, filesystem = storage.path(dataset_keys.rows_key(request.dataset_id)), storage.arrow_filesystem()
    metadata = pq.read_metadata(path, filesystem=filesystem)
    _set_up_ray_data()
    # Fine-tunes may hold every CPU of the cluster for hours, so nothing here asks for one. `read_parquet` would: it
    # lists files in a task of its own, which takes no options.
    slices = _slices(metadata)
    num_tasks = min(len(slices), _MAX_TASKS)
    measure = SliceMeasure(
        path=path,
        filesystem=filesystem,
        tokenizer=tokenizer,
        prompt_format=PromptFormat.for_rows(request.row_kind, tokenizer, request.options),
        max_length=request.max_length,
    )
    measured = ray.data.from_items(slices, override_num_blocks=num_tasks).map_batches(
        measure,
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=0,
        compute=TaskPoolStrategy(size=min(_num_workers(), num_tasks)),
    )
    with _Totals(request, has_empty_columns=_EMPTY_COLUMNS in metadata.schema.to_arrow_schema().names) as totals:
        try:
            for batch in measured.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                totals.add(batch)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, SiennError) else error from None
        return totals.statistics()


def _set_up_ray_data() -> None:
    context = ray.data.DataContext.get_current()
    context.raise_original_map_exception = True  # or our own errors would come as Ray's, with a traceback as message
    context.enable_progress_bars = False


def _num_workers() -> int:
    """Workers at once: what they take isn't reserved, so no more than there are CPUs."""
    return max(1, min(_MAX_WORKERS, int(ray.cluster_resources().get("CPU", 1))))


def _slices(metadata: Any) -> list[dict[str, int]]:
    """Pieces of a Parquet file that are measured one by one, each within one row group."""
    num_rows = max(_SLICE_ROWS, -(-metadata.num_rows // _MAX_TASKS))
    return [
        {"group": group, "start": start, "num_rows": num_rows}
        for group in range(metadata.num_row_groups)
        for start in range(0, metadata.row_group(group).num_rows, num_rows)
    ]


@dataclass(frozen=True)
class SliceMeasure:
    """Measures all rows of some slices of a Parquet file; Ray Data runs it in workers.

    Args:
        path: The file.
        filesystem: Where it is.
        tokenizer: The base model's.
        prompt_format: How rows become text.
        max_length: Tokens of a row in training.
    """

    path: str
    filesystem: Any
    tokenizer: Any
    prompt_format: PromptFormat
    max_length: int

    def __call__(self, slices: pa.Table) -> Iterator[pa.Table]:
        """The numbers of the rows of each slice, as columns."""
        with self.filesystem.open_input_file(self.path) as file:
            parquet = pq.ParquetFile(file)
            for item in slices.to_pylist():
                rows = parquet.read_row_group(item["group"], use_threads=False).slice(item["start"], item["num_rows"])
                # A few rows at a time: as Python objects they take several times the space.
                for start in range(0, rows.num_rows, _BATCH_ROWS):
                    yield self.measure(rows.slice(start, _BATCH_ROWS))

    def measure(self, rows: pa.Table) -> pa.Table:
        """The numbers of some rows, as columns."""
        measures = [
            measure_row(
                self.tokenizer,
                self.prompt_format,
                StoredRow.of(row),
                max_length=self.max_length,
            )
            for row in rows.select([name for name in CONTENT_COLUMNS if name in rows.column_names]).to_pylist()
        ]
        columns = {
            "num_chars": pa.array([measure.num_chars for measure in measures], pa.int64()),
            "num_prompt_tokens": pa.array([measure.num_prompt_tokens for measure in measures], pa.int64()),
            "num_completion_tokens": pa.array([measure.num_completion_tokens for measure in measures], pa.int64()),
            "is_dropped": pa.array([measure.is_dropped for measure in measures], pa.bool_()),
            "hash_high": _integers(measure.hash[:8] for measure in measures),
            "hash_low": _integers(measure.hash[8:] for measure in measures),
        }
        kept = [name for name in _PASSED_ON if name in rows.column_names]
        return pa.table({**{name: rows[name] for name in kept}, **columns})


def _integers(halves: Iterable[bytes]) -> pa.Array:
    return pa.array([int.from_bytes(half, "little") for half in halves], pa.uint64())


class _Totals:
    """Adds up what workers measured, batch by batch, in any order."""

    def __init__(self, request: StatisticsRequest, *, has_empty_columns: bool) -> None:
        self._request = request
        self._characters, self._tokens, self._prompt, self._completion = (Histogram() for _ in range(4))
        self._num_rows = self._num_over = self._num_tokens_over = self._num_dropped = 0
        self._num_empty = np.zeros(request.num_columns, np.int64) if has_empty_columns else None
        self._duplicates = DuplicateFinder()

    def __enter__(self) -> _Totals:
        self._duplicates.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._duplicates.__exit__(*error)

    def add(self, batch: pa.Table) -> None:
        column = {name: batch[name].to_numpy() for name in batch.column_names if name != _EMPTY_COLUMNS}
        tokens = column["num_prompt_tokens"] + column["num_completion_tokens"]
        self._characters.add(column["num_chars"])
        self._prompt.add(column["num_prompt_tokens"])
        self._completion.add(column["num_completion_tokens"])
        self._tokens.add(tokens)
        self._num_rows += len(tokens)
        self._num_over += int((tokens > self._request.max_length).sum())
        self._num_tokens_over += int((tokens - self._request.max_length).clip(min=0).sum())
        self._num_dropped += int(column["is_dropped"].sum())
        rows = np.empty(len(tokens), DTYPE)
        rows["high"], rows["low"] = column["hash_high"], column["hash_low"]
        rows["row"], rows["line"] = column["row"], column["line"]
        self._duplicates.add(rows)
        if self._num_empty is not None:
            numbers = batch[_EMPTY_COLUMNS].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            self._num_empty += np.bincount(numbers.astype(np.int64), minlength=len(self._num_empty))

    def statistics(self) -> DatasetStatistics:
        num_duplicates, lines = self._duplicates.repeated(MAX_DUPLICATE_LINES)
        return DatasetStatistics(
            base_model=self._request.base_model,
            max_length=self._request.max_length,
            num_rows=self._num_rows,
            characters=self._characters.distribution(),
            tokens=self._tokens.distribution(),
            prompt_tokens=self._prompt.distribution(),
            completion_tokens=self._completion.distribution(),
            num_rows_over_max_length=self._num_over,
            num_tokens_over_max_length=self._num_tokens_over,
            num_dropped_rows=self._num_dropped,
            num_duplicate_rows=num_duplicates,
            duplicate_lines=lines,
            num_empty=None if self._num_empty is None else self._num_empty.tolist(),
        )
