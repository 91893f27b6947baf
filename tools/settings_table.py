"""Writes docs/settings.md from the settings class: `python -m tools.settings_table`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr

from sienn_ray.settings import GIB, MIB, Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
COMMAND = "python -m tools.settings_table"
_HEAD = f"""\
# Settings

Every setting is a field of `sienn_ray.settings.Settings`. It is read from its environment variable; under Ray Serve the
application arguments in `serveconfig.yaml` have the same names and come before the environment. A process keeps the
settings it started with. An unknown name in `serveconfig.yaml`, or a value out of range, ends the start with a message.

This page is made by `{COMMAND}`, and a test compares it with the class.

| Setting | Environment variable | Default | What it does |
|---|---|---|---|
"""


def render() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(name) for name in Settings.model_fields)


def _row(name: str) -> str:
    description = str(Settings.model_fields[name].description).replace("|", r"\|")
    return (
        f"| `{name}` | `SIENN_{name.upper()}` | `{_default(name)}`{_in_words(name)} | {description}{_choices(name)} |\n"
    )


def _default(name: str) -> Any:
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    if name == "home":
        return str(default).replace(str(Path.home()), "~")
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    if value == "":  # placed under `home`
        placed = getattr(Settings(home=Path("/<home>"), storage_url="", database_url=SecretStr("")), name)
        return (placed.get_secret_value() if isinstance(placed, SecretStr) else placed).replace("/<", "<")
    return value


def _in_words(name: str) -> str:
    default = _default(name)
    if not name.endswith("_bytes") or default is None:
        return ""
    num_bytes = int(default)
    return f" ({num_bytes // GIB} GiB)" if num_bytes % GIB == 0 else f" ({num_bytes // MIB} MiB)"


def _choices(name: str) -> str:
    annotation = Settings.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        choices = tuple(annotation)
    else:
        return ""
    return f" One of {', '.join(f'`{choice}`' for choice in choices)}."


if __name__ == "__main__":
    PAGE.write_text(render())
