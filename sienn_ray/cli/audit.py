"""Commands about the audit log, for admins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from sienn_ray.access.audit import AuditEntry
from sienn_ray.cli.client import call, end
from sienn_ray.cli.output import print_line, print_table

app = typer.Typer(invoke_without_command=True, help="Who did what, when, with which result; for admins.")

_MAX_LIMIT = 1000
_PAGE = _MAX_LIMIT
_COLUMNS = ("created_at", "who", "client", "action", "target", "status", "num_requests")


@app.callback()
def audit(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(help="From then on, as 2025-11-12T10:30:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Before then.")] = None,
    principal: Annotated[str | None, typer.Option(help="Of a key, by its id, or of an owner.")] = None,
    action: Annotated[str | None, typer.Option(help="Of an operation, as cancel_job.")] = None,
    target: Annotated[str | None, typer.Option(help="About one thing, by its id.")] = None,
    status: Annotated[int | None, typer.Option(help="With this HTTP status.")] = None,
    request: Annotated[str | None, typer.Option(help="Of one request, by its id.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1, max=_MAX_LIMIT)] = 50,
) -> None:
    """List entries of the audit log, the newest first."""
    if context.invoked_subcommand is not None:
        return
    filters = {
        "since": since,
        "until": until,
        "principal": principal,
        "action": action,
        "target_id": target,
        "status": status,
        "request_id": request,
        "limit": limit,
    }
    query = {name: value for name, value in filters.items() if value is not None}
    print_table([_row(entry) for entry in call("GET", "/api/audit", params=query)["entries"]], _COLUMNS)


@app.command("verify")
def verify(
    contains: Annotated[
        str | None, typer.Option(help="A hash that was noted before, which must still be that of an entry.")
    ] = None,
) -> None:
    """Check that no entry was changed or taken out, by the hashes of all; prints the newest one, to be noted."""
    newest, later, number, is_found = None, None, 0, contains is None
    for entry in _entries():
        if entry.computed_hash() != entry.hash:
            end(f"entry {entry.seq} of {entry.created_at:%Y-%m-%d %H:%M:%S} UTC isn't as it was written")
        if later is not None and later.previous_hash != entry.hash:
            end(f"between the entries {entry.seq} and {later.seq} something was taken out or put in")
        newest, later, number = newest or entry, entry, number + 1
        is_found = is_found or entry.hash == contains
    if not is_found:
        end(f"no entry has the hash {contains}; the newest ones were taken out, or it is older than what is kept")
    last = f"; the newest is {newest.seq} with hash {newest.hash}" if newest else ""
    print_line(f"{number} entries are as they were written{last}")


def _entries() -> Iterator[AuditEntry]:
    """All entries, the newest first."""
    query: dict[str, Any] = {"limit": _PAGE}
    kind = TypeAdapter(AuditEntry)
    while True:
        page = call("GET", "/api/audit", params=query)
        yield from map(kind.validate_python, page["entries"])
        if page["next_cursor"] is None:
            return
        query["cursor"] = page["next_cursor"]


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    who = entry["principal_name"] or entry["principal_kind"]
    owner = f" ({entry['owner']})" if entry["owner"] else ""
    target = " ".join(filter(None, (entry["target_kind"], entry["target_id"])))
    return {**entry, "who": f"{who}{owner}", "action": entry["action"] or entry["request"], "target": target}
