"""Writes the table of a fine-tune's fields in docs/api.md: `python -m tools.hyperparameters_table`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from sienn_ray.api.schemas.finetuning import StartFinetuningRequest
from sienn_ray.training.hyperparameters import HYPERPARAMETERS, Hyperparameter

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
COMMAND = "python -m tools.hyperparameters_table"
_HEADING = "## Fine-tunes\n\n"
_HEAD = """\
| Field | Type | Default | Range | Meaning |
|---|---|---|---|---|
"""
_BY_NAME = {each.name: each for each in HYPERPARAMETERS}
# Fields that aren't hyperparameters, by type.
_OTHER_TYPES = {"labels": "object", "datasets": "list"}
_TYPE_NAMES: dict[frozenset[type], str] = {
    frozenset({bool}): "boolean",
    frozenset({int}): "integer",
    frozenset({float}): "float",
    frozenset({str}): "string",
    frozenset({str, tuple}): "string or list",
    frozenset({dict}): "object",
}


def render() -> str:
    """The table."""
    return _HEAD + "".join(_row(name) for name in StartFinetuningRequest.model_fields)


def page(text: str, table: str) -> str:
    """The page with another table."""
    before, after = text.split(_HEADING)
    _, after = after.split("\n\n", 1)
    return f"{before}{_HEADING}{table}\n{after}"


def table_of(text: str) -> str:
    """The table that the page has."""
    return text.split(_HEADING)[1].split("\n\n", 1)[0] + "\n"


def _row(name: str) -> str:
    hyperparameter = _BY_NAME.get(name)
    kind = _OTHER_TYPES.get(name, "string") if hyperparameter is None else _TYPE_NAMES[frozenset(hyperparameter.types)]
    limits = "" if hyperparameter is None else _limits(hyperparameter)
    meaning = str(StartFinetuningRequest.model_fields[name].description).replace("|", r"\|")
    return f"| `{name}` | {kind} | {_default(name)} | {limits} | {meaning} |\n"


def _default(name: str) -> str:
    default = StartFinetuningRequest.model_fields[name].get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    return f"`{json.dumps(default)}`" if default not in (None, {}) else "none"


def _limits(hyperparameter: Hyperparameter) -> str:
    limits = hyperparameter.limits
    for word in hyperparameter.choices:
        limits = re.sub(rf"\b{re.escape(word)}\b", f"`{word}`", limits, count=1)  # not within another word
    return limits


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), render()))
