"""A job and its datasets as the run that training takes."""

from __future__ import annotations

from dataclasses import dataclass

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.schema import check_one_kind, check_same_kind
from sienn_ray.jobs.schema import DatasetRecord, JobRecord
from sienn_ray.training.record import DatasetFacts, DatasetRole
from sienn_ray.training.spec import MixedDataset, Run
from sienn_ray.training.timeline import Timeline


@dataclass(frozen=True)
class JobDatasets:
    """Datasets that a job reads.

    Args:
        trained: Those that it trains on.
        validation: The one that it evaluates on, if that is one of its own.
    """

    trained: tuple[DatasetRecord, ...]
    validation: DatasetRecord | None = None

    @property
    def all(self) -> tuple[DatasetRecord, ...]:
        """Return all of them."""
        return self.trained if self.validation is None else (*self.trained, self.validation)


def run_of(job: JobRecord, datasets: JobDatasets, timeline: Timeline) -> Run:
    """Return the run of a job.

    Raises:
        InvalidDatasetError: The datasets hold different kinds of rows.
    """
    validation, first = datasets.validation, datasets.trained[0]
    kind = check_one_kind({record.id: record.format for record in datasets.trained})
    if validation is not None:
        check_same_kind(first.format, validation.format)
    config = job.config
    return Run(
        job_id=job.id,
        config=config,
        row_kind=kind,
        rows_key=dataset_keys.rows_key(first.id),
        adapter_key=job.adapter_key,
        validation_rows_key=dataset_keys.rows_key(validation.id) if validation else None,
        name=job.name,
        datasets=dataset_facts(job, datasets),
        statistics=tuple(
            record.statistics_request(config.base_model, config.max_length, options=config.render_options)
            for record in datasets.all
        ),
        templates=tuple(record.template_request(config) for record in datasets.all),
        timeline=timeline,
        start_key=job.start_key,
        from_job=job.from_job,
        mixture=tuple(
            MixedDataset(each.dataset_id, dataset_keys.rows_key(each.dataset_id), each.weight)
            for each in (job.trained_on if job.is_mixture else ())
        ),
    )


def dataset_facts(job: JobRecord, datasets: JobDatasets) -> tuple[DatasetFacts, ...]:
    """Return the facts about a run's datasets that its record has."""
    weights = [each.weight if job.is_mixture else None for each in job.trained_on]
    trained = tuple(
        _facts_of("train", record, weight) for record, weight in zip(datasets.trained, weights, strict=True)
    )
    if datasets.validation is None:
        return trained
    return (*trained, _facts_of("evaluation", datasets.validation, None))


def _facts_of(role: DatasetRole, record: DatasetRecord, weight: float | None) -> DatasetFacts:
    return DatasetFacts(
        role=role,
        id=record.id,
        filename=record.filename,
        sha256=record.sha256,
        num_rows=record.num_rows,
        format=record.format,
        version=record.version,
        weight=weight,
    )
