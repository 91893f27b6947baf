"""Commands about API keys, for admins."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sienn_ray.access.principals import ADMIN_OWNER, Scope
from sienn_ray.cli.client import call, of
from sienn_ray.cli.durations import seconds
from sienn_ray.cli.output import print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True, help="API keys, for admins: create, list, rotate and revoke them.")

KeyId = Annotated[str, typer.Argument(help="The key's id, as `sienn keys list` shows it.")]
_Lifetime = Annotated[str | None, typer.Option("--expires-in", help="As in 90d, 12h or 30m; by default never.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    owner: Annotated[str, typer.Option(help="Whose datasets and jobs it sees and makes.")] = ADMIN_OWNER,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it may be used for; may be repeated. By default all but admin."),
    ] = None,
    rate_limits: Annotated[
        str | None, typer.Option(help="As 600/minute;20000/hour; by default it counts with its address.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Of requests to models, prompts and answers together.")
    ] = None,
    max_open_answers: Annotated[int | None, typer.Option(min=1, help="Requests to models at once.")] = None,
    expires_in: _Lifetime = None,
) -> None:
    """Create a key, and print it: it can't be shown again."""
    body: dict[str, Any] = {"name": name, "owner": owner, "lifetime_s": _seconds(expires_in, "--expires-in")}
    limits = {
        "rate_limits": rate_limits,
        "tokens_per_minute": tokens_per_minute,
        "max_open_answers": max_open_answers,
    }
    body |= {name: value for name, value in limits.items() if value is not None}
    if scope:
        body["scopes"] = sorted(set(scope))
    _print_new(call("POST", "/api/keys", json=body))


@app.command("list")
def list_keys() -> None:
    """List all keys, without their secrets."""
    rows = [{**key, "scopes": ",".join(key["scopes"])} for key in call("GET", "/api/keys")["keys"]]
    print_table(rows, ("id", "name", "owner", "scopes", "prefix", "expires_at", "revoked_at"))


@app.command("rotate")
def rotate(
    key_id: KeyId,
    grace: Annotated[str, typer.Option(help="How long the old key stays valid, as in 1d, 12h or 0s.")] = "1d",
    expires_in: _Lifetime = None,
) -> None:
    """Create a successor of a key, and print it; both are valid until the grace period is over."""
    body = {"grace_s": _seconds(grace, "--grace"), "lifetime_s": _seconds(expires_in, "--expires-in")}
    _print_new(call("POST", f"/api/keys/{of(key_id)}/rotate", json=body))


@app.command("revoke")
def revoke(key_id: KeyId) -> None:
    """End a key at once and for good."""
    key = call("DELETE", f"/api/keys/{of(key_id)}")
    print_line(f"revoked: {key['id']} ({key['name']})")


@app.command("rotate-token-key")
def rotate_token_key() -> None:
    """Have access tokens signed with a new key; those that are out stay valid until they expire."""
    print_line(f"tokens are signed with {call('POST', '/api/auth/token-keys/rotate')['kid']} from now on")


@app.command("end-sessions")
def end_sessions(
    owner: Annotated[str, typer.Argument(help="Whose; after a login it is <issuer>|<subject>, as in the audit log.")],
) -> None:
    """End all sessions of an owner's browsers."""
    ended = call("DELETE", "/api/auth/sessions", params={"owner": owner})
    print_line(f"sessions of {ended['owner']} that have ended: {ended['num_ended']}")


@app.command("whoami")
def whoami() -> None:
    """Show who this command is for the service, and what it may do."""
    print_json(call("GET", "/api/auth/me"))


def _print_new(key: dict[str, Any]) -> None:
    print_line(f"id: {key['id']}")
    print_line(f"owner: {key['owner']}, scopes: {', '.join(key['scopes'])}, expires: {key['expires_at'] or 'never'}")
    print_line(f"key: {key['key']}")
    print_line("It isn't shown again. Put it into SIENN_API_KEY, or send it as 'Authorization: Bearer <key>'.")


def _seconds(duration: str | None, option: str) -> int | None:
    return None if duration is None else seconds(duration, option)
