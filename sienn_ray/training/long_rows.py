"""Rows with more tokens than `max_length`: counted, told of, and refused where `long_rows` says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.errors import FailureReason, InvalidDatasetError, InvalidInputError, TrainingError
from sienn_ray.storage import Storage
from sienn_ray.training.config import TrainingConfig


@dataclass(frozen=True)
class RowCounts:
    """Counts of the rows that a run doesn't take as they are.

    Args:
        num_dropped: Rows that are left out.
        num_long: Rows with more than `max_length` tokens, whether cut, split or left out.
        num_split: Those that are several examples.
        num_cut: Those that stay, but for some of their tokens.
        num_cut_tokens: Tokens that are cut off from the rows that stay.
    """

    num_dropped: int = 0
    num_long: int = 0
    num_split: int = 0
    num_cut: int = 0
    num_cut_tokens: int = 0


def found_words(
    config: TrainingConfig, max_row_tokens: int, *, num_long: int, num_rows: int, num_cut_tokens: int | None = None
) -> str:
    """Say how many rows are too long, what becomes of them, and what can be done about it.

    Args:
        config: Hyperparameters.
        max_row_tokens: Largest `max_length` that the service takes.
        num_long: Rows with more than `max_length` tokens.
        num_rows: Rows that these are among.
        num_cut_tokens: Tokens that are cut off, where that is known.
    """
    found = f"{num_long} of {num_rows} rows have more than max_length={config.max_length} tokens"
    return f"{found} and are {_fate(config, num_cut_tokens)}; {_remedy(config, max_row_tokens)}"


def first_words(config: TrainingConfig, max_row_tokens: int) -> str:
    """Say that there are rows that are too long, before it is known how many."""
    return (
        f"Some rows have more than max_length={config.max_length} tokens and are {_fate(config, None)}; how many is "
        f"told once all rows were read. To avoid it, {_remedy(config, max_row_tokens)}"
    )


def refusal(config: TrainingConfig, max_row_tokens: int, num_long: int, num_rows: int) -> str:
    """Say why `long_rows=fail` refuses a dataset."""
    return (
        f"{num_long} of {num_rows} rows have more than max_length={config.max_length} tokens, and long_rows=fail "
        f"refuses them; {_remedy(config, max_row_tokens)}"
    )


def no_room(config: TrainingConfig, max_row_tokens: int, name: str) -> InvalidDatasetError:
    """Return the error for a dataset of which no row can be learned from."""
    limit = f"max_length={config.max_length} tokens"
    if config.long_rows == "drop":
        return InvalidDatasetError(
            f"every row of the {name} has more than {limit}, and long_rows=drop leaves it out; "
            f"{_remedy(config, max_row_tokens)}"
        )
    return InvalidDatasetError(
        f"no row of the {name} has room for its answer: every prompt fills {limit}; raise max_length (up to "
        f"{max_row_tokens}) or shorten the prompts"
    )


def check_kind(long_rows: LongRows, row_kind: RowKind) -> None:
    """Refuse a policy that rows of a kind can't follow.

    Raises:
        InvalidInputError: A row over preferences would have to be split.
    """
    if long_rows == "split" and row_kind in {RowKind.PREFERENCE, RowKind.UNPAIRED_PREFERENCE}:
        raise InvalidInputError(
            "long_rows=split can't split preference rows, whose answers are judged as a whole; set long_rows to cut, "
            "drop or fail"
        )


def check_lengths(
    config: TrainingConfig,
    max_row_tokens: int,
    requests: Iterable[StatisticsRequest],
    storage: Storage,
    compute: Callable[[StatisticsRequest], DatasetStatistics],
) -> None:
    """Refuse datasets with rows that are too long, where `long_rows` says so.

    Args:
        config: Hyperparameters.
        max_row_tokens: Largest `max_length` that the service takes.
        requests: The statistics of each of the run's datasets.
        storage: Where statistics that were computed before are.
        compute: Computes the others.

    Raises:
        TrainingError: Rows are too long.
    """
    if config.long_rows != "fail":
        return
    for request in requests:
        found = DatasetStatistics.kept(storage, request) or compute(request)
        if found.num_rows_over_max_length:
            words = refusal(config, max_row_tokens, found.num_rows_over_max_length, found.num_rows)
            raise TrainingError(words, FailureReason.INVALID_DATASET)


def compute_lengths(storage: Storage, tokenizer: Callable[[], Any]) -> Callable[[StatisticsRequest], DatasetStatistics]:
    """Have Ray Data count, with a tokenizer that is loaded if it is needed, and keep the result for later attempts."""

    def compute(request: StatisticsRequest) -> DatasetStatistics:
        from sienn_ray.datasets.statistics import compute_statistics

        found = compute_statistics(storage, request, tokenizer())
        storage.write_bytes(request.key, found.model_dump_json().encode())
        return found

    return compute


def _fate(config: TrainingConfig, num_cut_tokens: int | None) -> str:
    if config.long_rows == "drop":
        return "left out (long_rows=drop)"
    if config.long_rows == "split":
        lost = f", but for {num_cut_tokens} tokens of turns that are too long by themselves" if num_cut_tokens else ""
        return f"split into several (long_rows=split){lost}"
    if num_cut_tokens is None:
        return "cut (long_rows=cut), so that they lose their end-of-turn token"
    return f"cut (long_rows=cut): {num_cut_tokens} tokens are lost, among them the end-of-turn token of each row"


def _remedy(config: TrainingConfig, max_row_tokens: int) -> str:
    others = {
        "cut": "set long_rows to drop, split or fail",
        "drop": "shorten these rows",
        "split": "shorten these rows",
        "fail": "set long_rows to cut, drop or split",
    }
    if config.max_length >= max_row_tokens and config.long_rows in {"drop", "split"}:
        return f"shorten these rows ({max_row_tokens} tokens is the most)"
    if config.max_length >= max_row_tokens:
        return f"shorten these rows ({max_row_tokens} tokens is the most), or {others[config.long_rows]}"
    return f"raise max_length (up to {max_row_tokens}), or {others[config.long_rows]}"
