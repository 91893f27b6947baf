"""Ray Data: read a dataset's rows from storage and tokenize them while training runs, just ahead of it.

Every worker has a pipeline of its own for its share of each step. Tokenizing needs no CPU that a worker reserves, since
workers may have reserved all; it is held back by how many blocks may wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.row_order import EpochOrder, Part, RowGroup, RowNumbers
from sienn_ray.datasets.row_tokens import RowTokenizer
from sienn_ray.datasets.stored_rows import CONTENT_COLUMNS, StoredRow
from sienn_ray.errors import SiennError
from sienn_ray.storage import Storage

# Tokenized blocks in the object store before Ray Data stops to make more. A block of 2,048 rows has a few MB.
_MAX_WAITING_BYTES = 64 * 1024**2
_MAX_TASKS = 1
# Parts that a worker tokenizes itself, up to 1,344 rows.
_NUM_OWN_PARTS = 3
_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("num_over", pa.int64()),
        ("is_split", pa.bool_()),
        ("is_desirable", pa.bool_()),
    ]
)


class TokenArrays(NamedTuple):
    """Tokens of a row, none of one that is left out: it has no room for its answer, or is too long.

    Args:
        input_ids: Tokens, `max_length` at the most.
        labels: Those that have to be produced.
        num_over: Tokens that the row has beyond `max_length`, and that are left out.
        is_split: Whether this is the last example of a row that was split since it was too long.
        is_desirable: The label of an answer that isn't compared with another one.
    """

    input_ids: list[int]
    labels: list[int]
    num_over: int = 0
    is_split: bool = False
    is_desirable: bool = True


class RowStore(Protocol):
    """Rows that can be taken by their numbers; `StoredRows` is one, `MixedRows` another."""

    @property
    def groups(self) -> tuple[RowGroup, ...]:
        """Return the row groups."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        ...

    def take(self, groups: tuple[int, ...], rows: RowNumbers) -> pa.Table:
        """Some rows, by their numbers, of some row groups."""
        ...


@dataclass(frozen=True)
class StoredRows:
    """Rows of a dataset in storage.

    Args:
        storage: Where they are.
        key: Storage key of the Parquet file.
    """

    storage: Storage
    key: str

    @cached_property
    def groups(self) -> tuple[RowGroup, ...]:
        """Return the row groups of the file."""
        metadata = pq.read_metadata(self._path, filesystem=self.storage.arrow_filesystem())
        groups, first_row = [], 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            groups.append(RowGroup(first_row, group.num_rows, group.total_byte_size))
            first_row += group.num_rows
        return tuple(groups)

    @property
    def num_rows(self) -> int:
        """Rows of the whole dataset."""
        return sum(group.num_rows for group in self.groups)

    def take(self, groups: tuple[int, ...], rows: RowNumbers) -> pa.Table:
        """Some rows, by their numbers in the dataset, of some row groups."""
        with pq.ParquetFile(self._path, filesystem=self.storage.arrow_filesystem()) as file:
            columns = [name for name in CONTENT_COLUMNS if name in file.schema_arrow.names]
            table = file.read_row_groups(list(groups), columns=columns)
        starts = np.cumsum([0, *(self.groups[group].num_rows for group in groups)])
        local = np.empty(len(rows), dtype=np.int64)
        for number, start in zip(groups, starts[:-1], strict=True):
            group = self.groups[number]
            own = (rows >= group.first_row) & (rows < group.first_row + group.num_rows)
            local[own] = rows[own] - group.first_row + start
        return table.take(local)

    @property
    def _path(self) -> str:
        return self.storage.path(self.key)


@dataclass(frozen=True)
class Share:
    """One worker's share of each step's rows.

    Args:
        rows_per_step: Rows of a step on all workers.
        rank: This worker's number.
        world_size: Workers.
    """

    rows_per_step: int
    rank: int = 0
    world_size: int = 1

    def steps_per_epoch(self, num_rows: int) -> int:
        """Steps of one pass over these rows; the last one may have fewer rows."""
        return -(-num_rows // self.rows_per_step)

    def is_own(self, positions: RowNumbers) -> Any:
        """(rows,) bool: dealt out one by one within each step, so that workers differ by one row at most."""
        return positions % self.rows_per_step % self.world_size == self.rank


@dataclass(frozen=True)
class TokenStream:
    """A worker's share of a dataset, tokenized, step by step.

    Args:
        rows: Where the rows come from.
        order: In which order.
        tokenizer: The base model's.
        prompt_format: How rows become text.
        max_length: Tokens of a row.
        long_rows: What becomes of longer rows.
        unpairs: Whether the answers of a preference are examples by themselves, the chosen one desirable.
    """

    rows: RowStore
    order: EpochOrder
    tokenizer: Any
    prompt_format: PromptFormat
    max_length: int
    long_rows: LongRows = "cut"
    unpairs: bool = False

    def steps(self, share: Share, *, first_step: int, num_steps: int) -> Iterator[tuple[int, list[TokenArrays]]]:
        """Steps with this worker's rows of each, which may be none.

        A preference row is two rows, the chosen one and the rejected one. A conversation is several where each answer
        is an example of its own, and a row that is too long where it is split.

        Args:
            share: Which rows are this worker's.
            first_step: 0-based, counted over all epochs.
            num_steps: Steps of the whole run.

        Raises:
            InvalidDatasetError: The chat template can't render a row.
        """
        step, waiting = first_step, []  # type: int, list[TokenArrays]
        for block in self._blocks(share, first_step, num_steps):
            for number, arrays in _rows_of(block):
                while step < number:
                    yield step, waiting
                    step, waiting = step + 1, []
                waiting.append(arrays)
        while step < num_steps:
            yield step, waiting
            step, waiting = step + 1, []

    def _blocks(self, share: Share, first_step: int, num_steps: int) -> Iterator[pa.Table]:
        """The first, small parts are tokenized here: a pipeline takes seconds until its first block comes out."""
        parts = list(self._parts(share, first_step, num_steps))
        for part in parts[:_NUM_OWN_PARTS]:
            yield self.tokenize(part, share)
        if len(parts) > _NUM_OWN_PARTS:
            yield from self._piped(parts[_NUM_OWN_PARTS:], share)

    def _piped(self, parts: list[Part], share: Share) -> Iterator[pa.Table]:
        import ray.data
        from ray.exceptions import RayTaskError

        tokenized = ray.data.from_items(
            [{"part": number} for number in range(len(parts))], override_num_blocks=len(parts)
        )
        tokenized = tokenized.map_batches(
            _Tokenize(self, share, parts),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=_MAX_TASKS),
        )
        _configure(tokenized.context)
        try:
            yield from tokenized.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, SiennError) else error from None

    def _parts(self, share: Share, first_step: int, num_steps: int) -> Iterator[Part]:
        """All that is left of the run, over its epochs: a pipeline for each would have to start anew."""
        steps_per_epoch = share.steps_per_epoch(self.order.num_rows)
        if not steps_per_epoch:
            return
        for epoch in range(first_step // steps_per_epoch + 1, -(-num_steps // steps_per_epoch) + 1):
            skipped = max(first_step - (epoch - 1) * steps_per_epoch, 0) * share.rows_per_step
            yield from self.order.parts(epoch, skipped)

    def tokenize(self, part: Part, share: Share) -> pa.Table:
        """Return the worker's rows of a part, tokenized."""
        positions = np.arange(part.first_position, part.first_position + part.stop - part.start)
        is_own = share.is_own(positions)
        raw = self.rows.take(self.order.groups_of(part), self.order.rows(part)[is_own]).to_pylist()
        first_step = (part.epoch - 1) * share.steps_per_epoch(self.order.num_rows)
        steps: list[int] = []
        tokens: list[TokenArrays] = []
        for position, row in zip(positions[is_own], raw, strict=True):
            for arrays in self._tokens(row):
                steps.append(first_step + int(position) // share.rows_per_step)
                tokens.append(arrays)
        columns = [steps, *([arrays[place] for arrays in tokens] for place in range(len(TokenArrays._fields)))]
        return pa.Table.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
        )

    def _tokens(self, values: dict[str, Any]) -> list[TokenArrays]:
        """Examples of one row; the last one tells what of the row is left out."""
        row = StoredRow.of(values)
        tokens = RowTokenizer(self.tokenizer, self.prompt_format, self.max_length, self.long_rows).tokens(row)
        is_desirable = row.label is not False
        found = [TokenArrays(each.input_ids, each.labels, is_desirable=is_desirable) for each in tokens.kept]
        if tokens.is_pair and not self.unpairs:
            found = [each._replace(num_over=side.num_cut) for each, side in zip(found, tokens.kept, strict=True)]
            return found or [TokenArrays([], [], tokens.num_over)]
        *others, last = found or [TokenArrays([], [])]
        num_over = tokens.num_over
        if tokens.is_pair:
            last = last._replace(is_desirable=False)
            num_over = sum(side.num_cut for side in tokens.kept) or num_over
        return [*others, last._replace(num_over=num_over, is_split=tokens.is_split)]


@dataclass(frozen=True)
class _Tokenize:
    """What Ray Data calls, for a block that holds the number of a part."""

    stream: TokenStream
    share: Share
    parts: list[Part]

    def __call__(self, block: pa.Table) -> pa.Table:
        return self.stream.tokenize(self.parts[block.column("part")[0].as_py()], self.share)


def _configure(context: Any) -> None:
    from ray.data import ExecutionResources

    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=_MAX_WAITING_BYTES)
    context.enable_progress_bars = False  # they would be drawn into the job's log
    context.raise_original_map_exception = True  # or our own errors would come as Ray's, with a traceback as message


def _rows_of(block: pa.Table) -> Iterator[tuple[int, TokenArrays]]:
    columns = (block.column(name) for name in _SCHEMA.names)
    # Row by row: as lists, the numbers of a whole block would take many times its memory.
    for step, *arrays in zip(*columns, strict=True):
        yield step.as_py(), TokenArrays(*(array.as_py() for array in arrays))
