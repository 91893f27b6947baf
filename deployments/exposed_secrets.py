"""Secrets where Ray shows them: in the arguments or the runtime environment of an application.

Ray's dashboard and `serve status` show both as they were given, to whoever has Ray's token. A variable of the process
that starts Ray is shown by neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import ray
from pydantic import SecretStr

from sienn_ray.settings import Settings

# Beside the settings that are secrets, those that libraries read.
_SECRETS_OF_LIBRARIES = frozenset(
    {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN"}
)


class ExposedSecretError(ValueError):
    """A secret is where Ray shows it."""


def check_no_exposed_secrets(
    args: Settings, environment: Mapping[str, str] | None = None, runtime_env: Mapping[str, Any] | None = None
) -> None:
    """Refuse secrets that came as arguments or in the runtime environment of an application.

    Args:
        args: Settings, of the arguments and the environment together.
        environment: Variables of this process; by default its own.
        runtime_env: The runtime environment of the task that this is called in; by default its own.

    Raises:
        ExposedSecretError: There is one.
    """
    environment = os.environ if environment is None else environment
    runtime_env = _runtime_env() if runtime_env is None else runtime_env
    # Ray puts these variables into the environment too, so they are looked at first.
    shown = set(runtime_env.get("env_vars") or {})
    secrets = {name: Settings.variable(name) for name in Settings.secret_names()}
    exposed = sorted(shown & ({*secrets.values()} | _SECRETS_OF_LIBRARIES))
    if exposed:
        raise ExposedSecretError(_words(exposed, "env_vars of the runtime_env"))
    exposed = [variable for name, variable in secrets.items() if _is_argument(args, name, environment.get(variable))]
    if exposed:
        raise ExposedSecretError(_words(exposed, "args"))


def _runtime_env() -> Mapping[str, Any]:
    return ray.get_runtime_context().runtime_env if ray.is_initialized() else {}


def _is_argument(args: Settings, name: str, variable: str | None) -> bool:
    value: SecretStr | None = getattr(args, name)
    if value is None or value.get_secret_value() == variable:
        return False
    text = value.get_secret_value()
    # A URL without a password is none, as that of a SQLite file.
    return "password" in text or urlsplit(text).password is not None if name.endswith("_url") else bool(text)


def _words(variables: list[str], where: str) -> str:
    return (
        f"{', '.join(variables)} is among the {where} of the application, which Ray's dashboard and `serve status` "
        "show; leave it out there, and set it in the environment of the process that starts Ray on each node"
    )
