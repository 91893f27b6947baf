from __future__ import annotations

from sienn_ray.jobs.shared_rows import shared_rows_words
from tests.support.fakes_jobs import dataset_record

ONE = dataset_record(sha256="1" * 64)
NEWER = dataset_record("v2", sha256="2" * 64, version=2, version_of=ONE.id)
COPY = dataset_record("copy", sha256="1" * 64)
OTHER = dataset_record("other", sha256="3" * 64)


def test_datasets_of_their_own_share_nothing() -> None:
    assert shared_rows_words([ONE, OTHER]) == []
    assert shared_rows_words([ONE], OTHER) == []


def test_rows_that_are_trained_on_twice_are_told() -> None:
    (words,) = shared_rows_words([ONE, OTHER, NEWER])
    assert words.startswith("datasets dataset-1 and v2 are versions 1 and 2 of one dataset")
    (words,) = shared_rows_words([ONE, COPY])
    assert words.startswith("datasets dataset-1 and copy are the same file")


def test_rows_that_are_evaluated_on_and_learned_are_told() -> None:
    (words,) = shared_rows_words([OTHER, ONE], NEWER)
    assert words.startswith("validation dataset v2 and dataset dataset-1, which is trained on, are versions 2 and 1 of")
    (words,) = shared_rows_words([ONE], COPY)
    assert "are the same file" in words
    assert "set validation_split" in words
