"""Bodies about usage."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field

from sienn_ray.access.usage import UsageCounts, UsageGroup, UsageReport, UsageRow
from sienn_ray.api.schemas.api_keys import KEY_ID
from sienn_ray.api.schemas.common import JOB_ID, Inline, ResponseBody
from sienn_ray.catalog import CATALOG
from sienn_ray.jobs.ids import shown

GroupName = Annotated[UsageGroup, Inline()]
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _written_as_day(value: Any) -> Any:
    """Refuse what pydantic would take for seconds since 1970."""
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError(f"'{shown(value)}' must be a day, such as 2026-11-29")
    return value


Day = Annotated[date, BeforeValidator(_written_as_day)]


class UsageAmounts(ResponseBody):
    """Amounts that were used."""

    num_requests: int = Field(description="Requests to the API.", examples=[120])
    num_answers: int = Field(description="Answers of models; a request may be for several.", examples=[40])
    prompt_tokens: int = Field(description="Tokens of prompts, once for each answer.", examples=[9200])
    completion_tokens: int = Field(description="Tokens that were generated.", examples=[4100])
    engine_s: float = Field(
        description="Seconds that answers were in an engine's batch, which they shared with others.", examples=[61.5]
    )
    training_cpu_s: float = Field(description="Seconds of training times the CPUs reserved.", examples=[3600.0])
    training_gpu_s: float = Field(description="Seconds of training times the GPUs reserved.", examples=[0.0])
    uploaded_bytes: int = Field(description="Bytes of request bodies.", examples=[1048576])
    downloaded_bytes: int = Field(description="Bytes of response bodies.", examples=[8676008])

    @classmethod
    def of(cls, counts: UsageCounts) -> Self:
        """Return amounts as a response has them."""
        return cls(**asdict(counts))


class UsageOfGroup(UsageAmounts):
    """Usage of one group; fields that weren't grouped by are null, and an empty text is none."""

    model_config = ConfigDict(protected_namespaces=())

    day: date | None = Field(description="Day in UTC.", examples=["2026-11-29"])
    owner: str | None = Field(description="Whose usage it is.", examples=["ada"])
    key_id: str | None = Field(description="API key.", examples=[KEY_ID])
    model_name: str | None = Field(
        description="Base model that was asked or trained; empty where none was.", examples=[CATALOG[0].id]
    )
    adapter_id: str | None = Field(description="The adapter's job.", examples=[JOB_ID])

    @classmethod
    def of_row(cls, row: UsageRow) -> Self:
        """Return a row of a report."""
        return cls(
            **asdict(row.counts),
            day=row.day,
            owner=row.owner,
            key_id=row.key_id,
            model_name=row.base_model,
            adapter_id=row.adapter_id,
        )


class UsageResponse(ResponseBody):
    """A page of a report on usage."""

    rows: list[UsageOfGroup] = Field(description="The groups, the newest days first.")
    count: int = Field(description="Groups on all pages.", examples=[1])
    next_offset: int | None = Field(description="`offset` of the next page; null after the last.", examples=[None])
    total: UsageAmounts = Field(description="All groups together.")

    @classmethod
    def of(cls, report: UsageReport, offset: int) -> Self:
        """Return a page that begins behind `offset` groups."""
        end = offset + len(report.rows)
        return cls(
            rows=[UsageOfGroup.of_row(row) for row in report.rows],
            count=report.count,
            next_offset=end if report.rows and end < report.count else None,
            total=UsageAmounts.of(report.total),
        )
