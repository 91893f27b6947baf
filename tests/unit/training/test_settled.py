"""How a run reads special tokens in text where the start of the job couldn't find it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from sienn_ray.datasets.weights import WeightedDataset
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.jobs.run_inputs import JobDatasets, run_of
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.template_check.verdict import RowGroup, TemplateVerdict
from sienn_ray.training.spec import Run
from sienn_ray.training.timeline import Timeline
from sienn_ray.training.trainer import _with_checked_templates
from tests.support.fakes_jobs import dataset_record, job_record
from tests.support.fakes_training import RecordingReporter

MARKED = TemplateVerdict(num_rows=1, is_all=True, marked=RowGroup(row=0, line=1, num_rows=1, reason="has some"))
RENDERED = MARKED.model_copy(update={"num_rendered": 1})


def checked(tmp_path: Path, reporter: RecordingReporter, *verdicts: TemplateVerdict) -> Run:
    """A run over datasets with these verdicts, behind the check."""
    settings = Settings(env="test", home=tmp_path)
    storage = Storage(settings.storage_url)
    records = tuple(dataset_record(f"d{number}", format="text") for number in range(len(verdicts)))
    mixture = tuple(WeightedDataset(dataset_id=record.id, weight=1) for record in records)
    run = run_of(job_record(dataset_id="d0", datasets=mixture), JobDatasets(records), Timeline(0.0))
    for request, verdict in zip(run.templates, verdicts, strict=True):
        storage.write_bytes(request.key, verdict.model_dump_json().encode())
    return _with_checked_templates(run, settings, storage, reporter)


def test_rows_are_counted_as_they_are_read(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    run = checked(tmp_path, reporter, RENDERED, RENDERED)
    assert run.config.special_tokens == "tokens"
    assert {each.options.special_tokens for each in run.statistics} == {"tokens"}
    assert "look rendered already" in str(reporter.reports[0].warning)


def test_a_mixture_that_disagrees_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="dataset d1 looks rendered already"):
        checked(tmp_path, RecordingReporter(), MARKED, RENDERED)
