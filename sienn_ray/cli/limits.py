"""Commands about the quotas of owners."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sienn_ray.cli.client import call
from sienn_ray.cli.output import print_table

app = typer.Typer(no_args_is_help=True, help="What owners may store, and have waiting and running.")


@app.command("show")
def show(owner: Annotated[str | None, typer.Argument(help="For admins; by default one's own.")] = None) -> None:
    """Show an owner's limits, and what is used of them."""
    _print(call("GET", "/api/limits", params={} if owner is None else {"owner": owner}))


@app.command("set")
def set_limits(
    owner: Annotated[str, typer.Argument(help="Whose limits they are.")],
    max_stored_bytes: Annotated[int | None, typer.Option(min=0, help="Of datasets, adapters and exports.")] = None,
    max_pending_jobs: Annotated[int | None, typer.Option(min=0, help="Jobs that wait.")] = None,
    max_running_jobs: Annotated[int | None, typer.Option(min=0, help="Jobs that run.")] = None,
    max_open_exports: Annotated[int | None, typer.Option(min=0, help="Exports that wait or run.")] = None,
    max_exports: Annotated[int | None, typer.Option(min=0, help="Exports that wait, run or are kept.")] = None,
    max_statistics: Annotated[int | None, typer.Option(min=0, help="Statistics that are computed at once.")] = None,
) -> None:
    """Give an owner limits of its own, in place of all that it had; those left out are the service's."""
    body = {
        "owner": owner,
        "max_stored_bytes": max_stored_bytes,
        "max_pending_jobs": max_pending_jobs,
        "max_running_jobs": max_running_jobs,
        "max_open_exports": max_open_exports,
        "max_exports": max_exports,
        "max_statistics": max_statistics,
    }
    _print(call("PUT", "/api/limits", json=body))


def _print(limits: dict[str, Any]) -> None:
    owner = limits.pop("owner")
    rows = [{"owner": owner, "what": name, **quota} for name, quota in limits.items()]
    print_table(rows, ("owner", "what", "used", "limit", "is_own"))
