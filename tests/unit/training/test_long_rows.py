from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.errors import FailureReason, InvalidInputError, TrainingError
from sienn_ray.storage import Storage
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.long_rows import check_kind, check_lengths, found_words
from tests.support.fakes_statistics import statistics_of

REQUEST = StatisticsRequest("d", "owner/base", 512, RowKind.CONVERSATION, 2)


def config_of(**options: Any) -> TrainingConfig:
    return TrainingConfig(base_model="owner/base", **options)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}")


class Counted:
    """Counts, and remembers for which request."""

    def __init__(self) -> None:
        self.asked: list[StatisticsRequest] = []

    def __call__(self, request: StatisticsRequest) -> DatasetStatistics:
        self.asked.append(request)
        return statistics_of(request)


def test_fail_refuses_with_the_number_and_the_remedy(storage: Storage) -> None:
    with pytest.raises(TrainingError) as error:
        check_lengths(config_of(long_rows="fail"), 2048, [REQUEST], storage, Counted())
    assert error.value.message == (
        "7 of 1319 rows have more than max_length=512 tokens, and long_rows=fail refuses them; raise max_length (up to "
        "2048), or set long_rows to cut, drop or split"
    )
    assert error.value.reason is FailureReason.INVALID_DATASET


def test_numbers_that_are_there_arent_counted_again(storage: Storage) -> None:
    none = statistics_of(REQUEST).model_copy(update={"num_rows_over_max_length": 0})
    storage.write_bytes(REQUEST.key, none.model_dump_json().encode())
    count = Counted()
    check_lengths(config_of(long_rows="fail"), 2048, [REQUEST], storage, count)
    assert count.asked == []


@pytest.mark.parametrize("policy", ["cut", "drop", "split"])
def test_nothing_is_counted_beforehand_where_nothing_is_refused(storage: Storage, policy: str) -> None:
    count = Counted()
    check_lengths(config_of(long_rows=policy), 2048, [REQUEST], storage, count)
    assert count.asked == []


@pytest.mark.parametrize("kind", RowKind)
@pytest.mark.parametrize("policy", ["cut", "drop", "split", "fail"])
def test_answers_that_are_judged_as_a_whole_arent_split(kind: RowKind, policy: LongRows) -> None:
    is_judged = kind in {RowKind.PREFERENCE, RowKind.UNPAIRED_PREFERENCE}
    refusal = pytest.raises(InvalidInputError, match="set long_rows to cut, drop or fail")
    with refusal if policy == "split" and is_judged else nullcontext():
        check_kind(policy, kind)


def test_rows_of_the_longest_kind_can_only_be_shortened() -> None:
    words = found_words(config_of(max_length=2048), 2048, num_long=3, num_rows=4)
    assert words.endswith("; shorten these rows (2048 tokens is the most), or set long_rows to drop, split or fail")


def test_a_limit_that_was_raised_is_named() -> None:
    words = found_words(config_of(max_length=2048), 8192, num_long=3, num_rows=4)
    assert "raise max_length (up to 8192)" in words
