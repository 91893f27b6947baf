"""Ray's own ports, which run what they are sent: whether they ask for Ray's token where other machines reach them."""

from __future__ import annotations

import os
from collections.abc import Mapping

import ray
import ray.util

from sienn_ray.settings import Settings, is_loopback


class UnguardedRayError(RuntimeError):
    """Other machines reach Ray's ports, and these ask nobody for anything."""


def check_ray_is_guarded(settings: Settings) -> None:
    """Refuse a cluster whose ports run what anyone sends them; called in a task of that cluster.

    Raises:
        UnguardedRayError: It is one, and settings don't say that this is wanted.
    """
    if ray.is_initialized() and (fault := ray_fault(settings, os.environ, ray.util.get_node_ip_address())):
        raise UnguardedRayError(fault)


def ray_fault(settings: Settings, environment: Mapping[str, str], address: str) -> str | None:
    """Say why a cluster isn't guarded, or None where it is or needn't be.

    Args:
        settings: See `Settings`.
        environment: Variables of a process of the cluster.
        address: The node's, by which other nodes reach it.
    """
    # Ray reads its mode from there, and puts it there where it chooses by itself.
    is_on = environment.get("RAY_AUTH_MODE", "").lower() == "token"
    if is_on or is_loopback(address) or settings.ray_auth == "off":
        return None
    return (
        f"Ray's ports on {address} run whatever they are sent, by anyone who reaches them, since RAY_AUTH_MODE isn't "
        "'token'; set RAY_AUTH_MODE=token before `ray start` on each node (`ray get-auth-token --generate` makes the "
        "token), or SIENN_RAY_AUTH=off where something else keeps everybody away from them"
    )
