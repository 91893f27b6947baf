from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sienn_ray.datasets.weights import WeightedDataset
from sienn_ray.errors import ConflictError, NotFoundError
from sienn_ray.jobs.schema import DatasetRecord, JobQuery, JobStatus
from sienn_ray.jobs.store import dataset_versions
from sienn_ray.jobs.store.store import Store
from tests.support.fakes_jobs import dataset_record, job_record


def version(name: str, **fields: Any) -> DatasetRecord:
    return dataset_record(name, **{"version_of": "dataset-1", **fields})


@pytest.fixture(autouse=True)
def _first(store: Store) -> None:
    store.datasets.add(dataset_record())


class TestNumbers:
    def test_rise_and_stay(self, store: Store) -> None:
        assert [store.datasets.add(version(name)).version for name in ("v2", "v3")] == [2, 3]
        assert store.datasets.add(version("v3")).version == 3
        store.datasets.delete("v3")
        assert store.datasets.add(version("v4")).version == 4
        found = [(each.id, each.version) for each in store.datasets.versions("v4")]
        assert found == [("dataset-1", 1), ("v2", 2), ("v4", 4)]
        assert store.datasets.versions("dataset-1") == store.datasets.versions("v2")

    def test_of_versions_that_are_made_at_once_differ(self, store: Store) -> None:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda number: store.datasets.add(version(f"at-once-{number}")).version, range(8)))
        assert sorted(made) == list(range(2, 10))

    def test_other_datasets_have_their_own(self, store: Store) -> None:
        store.datasets.add(version("v2"))
        store.datasets.add(dataset_record("dataset-2"))
        assert store.datasets.add(dataset_record("w2", version_of="dataset-2")).version == 2
        assert [each.id for each in store.datasets.versions("dataset-2")] == ["dataset-2", "w2"]


class TestRefusals:
    def test_rows_are_appended_to_the_newest_version_alone(self, store: Store) -> None:
        store.datasets.add(version("v2", appended_to="dataset-1"))
        with pytest.raises(ConflictError, match="version 2 of dataset dataset-1 was made meanwhile"):
            store.datasets.add(version("v3", appended_to="dataset-1"))
        assert store.datasets.add(version("v3", appended_to="v2")).version == 3

    def test_one_that_names_the_newest_comes_behind_that_alone(self, store: Store) -> None:
        assert store.datasets.add(version("v2", base_version=1)).version == 2
        with pytest.raises(ConflictError, match="version 2 is the newest of dataset dataset-1, not 1; look at it"):
            store.datasets.add(version("v3", base_version=1))
        assert store.datasets.add(version("v3", base_version=2)).version == 3

    @pytest.mark.parametrize("fields", [{"version_of": "other"}, {"owner": "bob"}, {"version_of": "v2"}])
    def test_a_version_belongs_to_a_first_one_of_the_same_owner(self, store: Store, fields: dict[str, Any]) -> None:
        store.datasets.add(version("v2"))
        with pytest.raises(NotFoundError):
            store.datasets.add(version("v3", **fields))

    def test_there_are_only_so_many(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dataset_versions, "MAX_VERSIONS", 2)
        store.datasets.add(version("v2"))
        with pytest.raises(ConflictError, match="has 2 versions, as many as it may have"):
            store.datasets.add(version("v3"))


class TestDeletion:
    def test_with_the_first_go_all_and_their_files(self, store: Store) -> None:
        store.datasets.add(version("v2"))
        store.datasets.delete("dataset-1")
        assert store.datasets.page().count == 0
        assert {each.id for each in store.deletions.due()} == {"dataset-1", "v2"}

    def test_a_mixture_keeps_each_of_its_datasets(self, store: Store) -> None:
        store.datasets.add(version("v2"))
        store.datasets.add(dataset_record("dataset-2"))
        mixture = (WeightedDataset(dataset_id="dataset-2"), WeightedDataset(dataset_id="v2", weight=0.5))
        job = store.jobs.add(job_record(dataset_id="dataset-2", datasets=mixture, status=JobStatus.RUNNING))
        assert [each.version for each in job.datasets] == [1, 2]
        assert store.jobs.get("job-1").datasets == job.datasets
        for dataset_id in ("dataset-1", "v2", "dataset-2"):
            with pytest.raises(ConflictError, match="1 job uses dataset"):
                store.datasets.delete(dataset_id)
        assert store.jobs.page(JobQuery(dataset_id="v2")).count == 1
        store.jobs.cancel("job-1")
        store.jobs.note_stop("job-1")
        store.jobs.delete("job-1")
        store.datasets.delete("v2")
        assert store.jobs.page(JobQuery(dataset_id="v2")).count == 0

    def test_a_mixture_of_a_dataset_that_is_not_there(self, store: Store) -> None:
        mixture = (WeightedDataset(dataset_id="dataset-1"), WeightedDataset(dataset_id="other"))
        with pytest.raises(NotFoundError, match="Dataset other not found"):
            store.jobs.add(job_record(datasets=mixture))
