"""Reads the API reference beside this file, which is what clients were promised."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).with_name("reference.md")

_HEADING = re.compile(r"^#### `(GET|POST|PUT|DELETE) (/\S*)`$", re.MULTILINE)
_ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<default>[^|]+) \| (?P<description>[^|]+) \|$", re.MULTILINE
)
_RANGE = re.compile(r"\(([\d.e-]+)(?:-| to )([\d.e-]+)\)")


@dataclass(frozen=True)
class Parameter:
    """One row of a parameters table.

    Args:
        name: Field of the request's body.
        type: As the table names it: string, integer, float or boolean.
        is_required: Whether a request without it is refused.
        default: What counts where it is left out.
        limits: The lowest and the highest value, both allowed; None where none are documented.
    """

    name: str
    type: str
    is_required: bool
    default: Any
    limits: tuple[float, float] | None


@dataclass(frozen=True)
class Endpoint:
    """One documented endpoint; bodies are None where none is shown as JSON."""

    method: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def response(self) -> Any:
        """The documented response."""
        return _json_after("**Response:**", self.text)

    @property
    def request(self) -> Any:
        """The documented request body."""
        return _json_after("**Request Body:**", self.text)

    @property
    def parameters(self) -> list[Parameter]:
        """The rows of the parameters table."""
        return [_parameter(row) for row in _ROW.finditer(self.text)]


def text() -> str:
    """The whole reference."""
    return REFERENCE.read_text()


def endpoints() -> list[Endpoint]:
    """All documented endpoints, in their order."""
    content = text()
    headings = list(_HEADING.finditer(content))
    ends = [heading.start() for heading in headings[1:]] + [content.index("\n## Examples")]
    return [
        Endpoint(heading[1], heading[2], content[heading.end() : end])
        for heading, end in zip(headings, ends, strict=True)
    ]


def endpoint(name: str) -> Endpoint:
    """One endpoint by method and path, such as `GET /health`."""
    return next(each for each in endpoints() if str(each) == name)


def section(title: str) -> str:
    """The text under a heading of any level, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text(), re.MULTILINE | re.DOTALL)
    assert found, f"the reference has no section '{title}'"
    return found[1]


def code_blocks(language: str, content: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", content, re.MULTILINE | re.DOTALL)


def _json_after(mark: str, content: str) -> Any:
    found = re.search(rf"{re.escape(mark)}\n```json\n(.*?)^```$", content, re.MULTILINE | re.DOTALL)
    return json.loads(found[1]) if found else None


def _parameter(row: re.Match[str]) -> Parameter:
    default = row["default"].strip().strip("`")
    limits = _RANGE.search(row["description"])
    return Parameter(
        name=row["name"],
        type=row["type"],
        is_required=default in {"**required**", "**yes**"},
        default=None if "*" in default or default.startswith("for ") else json.loads(default),
        limits=(float(limits[1]), float(limits[2])) if limits else None,
    )
