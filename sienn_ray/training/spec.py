"""Specification of a run, from its program to its workers, and their results. Nothing here brings torch along."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sienn_ray.datasets.row_order import EpochOrder
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.statistics_schema import StatisticsRequest
from sienn_ray.datasets.token_stream import RowStore, Share, TokenArrays
from sienn_ray.settings import Settings
from sienn_ray.template_check.verdict import TemplateRequest
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.micro_batch_limits import NO_LIMITS, MicroBatchLimits
from sienn_ray.training.record import DatasetFacts, ResolvedFacts
from sienn_ray.training.reporting import Reporter
from sienn_ray.training.timeline import Timeline


class RowSource(Protocol):
    """A source of a worker's tokenized rows; `TokenStream` is one."""

    def steps(self, share: Share, *, first_step: int, num_steps: int) -> Iterator[tuple[int, list[TokenArrays]]]:
        """Steps with this worker's rows of each."""
        ...


@dataclass(frozen=True)
class MixedDataset:
    """A dataset of a mixture.

    Args:
        dataset_id: Its id, for reports.
        rows_key: Storage key of its rows.
        weight: How often each of its rows is met in an epoch.
    """

    dataset_id: str
    rows_key: str
    weight: float


@dataclass(frozen=True)
class Run:
    """A run: its configuration, its datasets, and the place for its adapter.

    Args:
        job_id: Names the run and its checkpoints.
        config: Hyperparameters.
        row_kind: What the rows are.
        rows_key: Storage key of the rows.
        adapter_key: Storage key of the adapter.
        validation_rows_key: Rows to evaluate on, instead of a share of the others.
        name: The job's name.
        datasets: What they are, for the record.
        statistics: The statistics that tell how long the rows of each dataset are.
        templates: The checks of each dataset against the base model's chat template.
        timeline: Where the time since the submission went.
        start_key: Storage key of the adapter that it starts from; None where it starts from the base model.
        from_job: The job that has made that adapter, if one of this service has.
        mixture: The datasets whose rows are mixed by weight, in place of those at `rows_key`.
    """

    job_id: str
    config: TrainingConfig
    row_kind: RowKind
    rows_key: str
    adapter_key: str
    validation_rows_key: str | None = None
    name: str | None = None
    datasets: tuple[DatasetFacts, ...] = ()
    statistics: tuple[StatisticsRequest, ...] = ()
    templates: tuple[TemplateRequest, ...] = ()
    timeline: Timeline = field(default_factory=lambda: Timeline(time.time()))
    start_key: str | None = None
    from_job: str | None = None
    mixture: tuple[MixedDataset, ...] = ()


@dataclass(frozen=True)
class OrderedRows:
    """Rows in storage, some or all of them, in an order."""

    stored: RowStore
    order: EpochOrder


@dataclass(frozen=True)
class RunRows:
    """Rows that a run trains on and is evaluated on.

    Args:
        train: Rows to train on.
        evaluation: Rows to evaluate on, if any.
    """

    train: OrderedRows
    evaluation: OrderedRows | None

    @property
    def num_train(self) -> int:
        """Rows of an epoch."""
        return self.train.order.num_rows

    @property
    def num_eval(self) -> int:
        """Rows of an evaluation."""
        return 0 if self.evaluation is None else self.evaluation.order.num_rows


@dataclass(frozen=True)
class LoopSpec:
    """All that a worker needs to know beside its rows.

    Args:
        config: Hyperparameters.
        settings: Of the service.
        reporter: Who is told how it goes.
        num_train_rows: Rows of an epoch.
        num_eval_rows: Rows of an evaluation.
        row_kind: What the rows are.
        has_validation_dataset: Whether the rows to evaluate on are a dataset of their own.
        num_cpus: CPUs of a worker.
        known_limits: Of a micro batch, where an earlier try ran out of memory with a larger one.
        timeline: What has been timed before the worker started.
        start_key: Storage key of the adapter that the run starts from; None where it starts from the base model.
    """

    config: TrainingConfig
    settings: Settings
    reporter: Reporter
    num_train_rows: int
    num_eval_rows: int
    row_kind: RowKind = RowKind.CONVERSATION
    has_validation_dataset: bool = False
    num_cpus: int = 1
    known_limits: MicroBatchLimits = NO_LIMITS
    timeline: Timeline = field(default_factory=lambda: Timeline(time.time()))
    start_key: str | None = None


@dataclass(frozen=True)
class BaseModelFacts:
    """Facts about the base model that an adapter is published with, from a worker that has it.

    Args:
        revision: The commit that was loaded; None where it isn't known.
        weights_sha256: One hash over its weight files.
        files: The adapter's tokenizer and prompt format, by file name.
    """

    revision: str | None
    weights_sha256: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class LoopResult:
    """Result of the loop on a worker.

    Args:
        facts: What was chosen for the run, for its record.
        is_paused: Whether it wrote a checkpoint and left, as it was told to.
        is_fenced: Whether it left without a checkpoint, since the job doesn't await this attempt any more.
        timeline: Seconds by what they were spent on, up to the first step.
        peak_memory_bytes: Most memory that the worker's process had, and on a GPU that its tensors took there.
        base: What is published of the base model, from the first worker of a run that wasn't paused.
    """

    facts: ResolvedFacts
    is_paused: bool = False
    is_fenced: bool = False
    timeline: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    base: BaseModelFacts | None = None
