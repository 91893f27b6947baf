"""Commands about webhooks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sienn_ray.cli.client import call, end, of
from sienn_ray.cli.durations import seconds
from sienn_ray.cli.output import print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True, help="Webhooks: be told of what happens to jobs and exports by a signed POST.")

WebhookId = Annotated[str, typer.Argument(help="The webhook's id, as `sienn webhooks list` shows it.")]
_Event = Annotated[
    list[str] | None,
    typer.Option("--event", help="As job.completed or export.failed; may be repeated. By default all."),
]
_Description = Annotated[str | None, typer.Option(help="What it is for.")]


@app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="Where events are posted to.")],
    event: _Event = None,
    description: _Description = None,
) -> None:
    """Create a webhook, and print its secret: it can't be shown again."""
    body: dict[str, Any] = {"url": url, "description": description}
    if event:
        body["events"] = sorted(set(event))
    _print_with_secret(call("POST", "/api/webhooks", json=body))


@app.command("list")
def list_webhooks() -> None:
    """List the webhooks, without their secrets."""
    rows = [{**each, "events": ",".join(each["events"])} for each in call("GET", "/api/webhooks")["webhooks"]]
    print_table(rows, ("webhook_id", "owner", "url", "is_active", "failing_since", "events"))


@app.command("show")
def show(webhook_id: WebhookId) -> None:
    """Show a webhook, and why it isn't active where the service has ended it."""
    print_json(call("GET", f"/api/webhooks/{of(webhook_id)}"))


@app.command("change")
def change(
    webhook_id: WebhookId,
    url: Annotated[str | None, typer.Option(help="Where events are posted to.")] = None,
    event: _Event = None,
    description: _Description = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether anything is delivered.")] = None,
) -> None:
    """Change a webhook; what isn't named stays as it is."""
    given = {
        "url": url,
        "events": sorted(set(event)) if event else None,
        "description": description,
        "is_active": active,
    }
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        end("there is nothing to change; name --url, --event, --description, --active or --inactive")
    print_json(call("PATCH", f"/api/webhooks/{of(webhook_id)}", json=body))


@app.command("rotate")
def rotate(
    webhook_id: WebhookId,
    grace: Annotated[
        str, typer.Option(help="How long deliveries are signed with the old secret as well, as in 1d or 0s.")
    ] = "1d",
) -> None:
    """Make another secret of a webhook, and print it."""
    body = {"grace_s": seconds(grace, "--grace")}
    _print_with_secret(call("POST", f"/api/webhooks/{of(webhook_id)}/rotate-secret", json=body))


@app.command("delete")
def delete(webhook_id: WebhookId) -> None:
    """Delete a webhook with its deliveries."""
    print_line(f"deleted: {call('DELETE', f'/api/webhooks/{of(webhook_id)}')['webhook_id']}")


@app.command("deliveries")
def deliveries(
    webhook_id: WebhookId,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the newest first.")] = 20,
) -> None:
    """List what was sent to a webhook, or waits, and how that went."""
    query = {"limit": limit, **({"status": status} if status else {})}
    page = call("GET", f"/api/webhooks/{of(webhook_id)}/deliveries", params=query)
    columns = ("delivery_id", "event", "status", "num_attempts", "response_status", "created_at", "due_at", "error")
    print_table(page["deliveries"], columns)
    if page["count"] > len(page["deliveries"]):
        print_line(f"{len(page['deliveries'])} of {page['count']}; --limit shows more")


@app.command("redeliver")
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(help="The delivery's id, as `sienn webhooks deliveries` shows it.")],
) -> None:
    """Send something once more, under the id that it had."""
    again = call("POST", f"/api/webhooks/{of(webhook_id)}/deliveries/{of(delivery_id)}/redeliver")
    print_line(
        f"{again['delivery_id']} is {again['status']}; `sienn webhooks deliveries {webhook_id}` says how it goes"
    )


@app.command("test")
def test(webhook_id: WebhookId) -> None:
    """Send a ping to a webhook."""
    ping = call("POST", f"/api/webhooks/{of(webhook_id)}/test")
    print_line(f"{ping['delivery_id']} is {ping['status']}; `sienn webhooks deliveries {webhook_id}` says how it goes")


def _print_with_secret(webhook: dict[str, Any]) -> None:
    print_line(f"id: {webhook['webhook_id']}")
    print_line(f"url: {webhook['url']}, events: {', '.join(webhook['events'])}")
    print_line(f"secret: {webhook['secret']}")
    print_line("It isn't shown again. A receiver checks signatures with it, as docs/operations.md shows.")
