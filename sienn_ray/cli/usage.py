"""The command about usage."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sienn_ray.access.usage import UsageGroup
from sienn_ray.cli.client import call
from sienn_ray.cli.output import print_line, print_table

_AMOUNTS = (
    "num_requests",
    "num_answers",
    "prompt_tokens",
    "completion_tokens",
    "engine_s",
    "training_cpu_s",
    "training_gpu_s",
    "uploaded_bytes",
    "downloaded_bytes",
)
_GROUPS = ("day", "owner", "key_id", "model_name", "adapter_id")


def usage(
    group_by: Annotated[
        list[UsageGroup] | None, typer.Option(help="What rows are of; may be repeated. By default day.")
    ] = None,
    first_day: Annotated[str | None, typer.Option("--from", help="The first day, as 2026-11-01.")] = None,
    last_day: Annotated[str | None, typer.Option("--to", help="The last day.")] = None,
    key: Annotated[str | None, typer.Option(help="Of this API key, by its id.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this base model, or of this job's adapter.")] = None,
    owner: Annotated[str | None, typer.Option(help="Of this owner, for admins.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows at the most.")] = 100,
) -> None:
    """Show what was used: requests, tokens, seconds and bytes."""
    given: dict[str, Any] = {
        "from": first_day,
        "to": last_day,
        "key": key,
        "model": model,
        "owner": owner,
        "group_by": [group.value for group in group_by or [UsageGroup.DAY]],
        "limit": limit,
    }
    answered = call("GET", "/api/usage", params={name: value for name, value in given.items() if value is not None})
    rows = answered["rows"]
    groups = tuple(name for name in _GROUPS if any(row[name] is not None for row in rows))
    amounts = tuple(name for name in _AMOUNTS if answered["total"][name])
    print_table([*rows, {**dict.fromkeys(groups, ""), **answered["total"]}], (*groups, *amounts))
    if answered["next_offset"] is not None:
        print_line(f"{len(rows)} of {answered['count']}")
