"""The model that a request is for: a base model, or an adapter of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sienn_ray import catalog
from sienn_ray.api.deps import Backends
from sienn_ray.api.lists.base_models import check_base_model
from sienn_ray.api.lists.completed import completed_job
from sienn_ray.errors import InvalidBaseModelError, NotFoundError
from sienn_ray.inference.engine import ChatMessage, GenerationRequest, SamplingParams
from sienn_ray.jobs.ids import is_id, shown
from sienn_ray.jobs.schema import JobQuery, JobRecord, JobStatus
from sienn_ray.storage import Storage

_CATALOG_IDS = frozenset(entry.id for entry in catalog.CATALOG)


@dataclass(frozen=True)
class AskedModel:
    """A base model, with a completed job's adapter or without.

    Args:
        base_model: Hub id.
        job: The adapter's job.
        revision: Commit of the base model; None takes any.
        template_variables: Values of the chat template's variables that a base model is asked with.
    """

    base_model: str
    job: JobRecord | None = None
    revision: str | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def adapter_of(cls, job: JobRecord) -> AskedModel:
        """A completed job's adapter."""
        return cls(job.config.base_model, job, job.config.base_model_revision)

    @classmethod
    def base_of(cls, job: JobRecord) -> AskedModel:
        """A job's base model as its adapter is asked: at the commit that it was trained on, with its variables."""
        config = job.config
        return cls(
            config.base_model, revision=config.base_model_revision, template_variables=config.chat_template_kwargs
        )

    def request(self, prompt: tuple[ChatMessage, ...] | str, sampling: SamplingParams) -> GenerationRequest:
        """Return the request to the base model's engine."""
        return GenerationRequest(
            prompt,
            adapter_id=None if self.job is None else self.job.id,
            adapter_key=None if self.job is None else self.job.adapter_key,
            sampling=sampling,
            base_model_revision=self.revision,
            template_variables=self.template_variables,
            adapter_config={} if self.job is None else self.job.config.lora.serving_fields,
        )

    def path(self, storage: Storage) -> str:
        """Return the adapter's location in storage, or the base model's id."""
        return self.base_model if self.job is None else storage.location(self.job.adapter_key)


async def find_model(backends: Backends, name: str) -> AskedModel:
    """Find a model by name: a completed job's id, or the hub id of a base model of the catalog or of such a job.

    Raises:
        NotFoundError: It stands for nothing that can be had here.
        JobStateError: The job isn't completed.
        InvalidBaseModelError: A base model of this id isn't allowed.
    """
    if is_id(name) and name not in _CATALOG_IDS:
        with suppress(NotFoundError):
            return AskedModel.adapter_of(await completed_job(backends, name, "answering"))
    backends.settings.admission_rules.check_id(name)
    try:
        return await _base_model(backends, name)
    except InvalidBaseModelError as error:
        raise NotFoundError(f"The model '{shown(name)}' does not exist here: {error.message}") from error


async def _base_model(backends: Backends, name: str) -> AskedModel:
    if name in _CATALOG_IDS:
        await check_base_model(name, backends.settings)
        return AskedModel(name)
    catalog.check_id(name)
    page = await backends.tracker.jobs(JobQuery(base_model=name, status=JobStatus.COMPLETED, limit=1))
    if not page.jobs:
        raise InvalidBaseModelError(
            "it is neither a job's id, nor a base model of the catalog or of a completed job; see GET /v1/models"
        )
    config = page.jobs[0].config
    return AskedModel(name, revision=config.base_model_revision)
