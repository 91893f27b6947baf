"""Writes docs/openapi.json from the application: `python -m tools.openapi_document`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from tests.support.fakes_backends import fake_backends

PAGE = Path(__file__).parents[1] / "docs" / "openapi.json"
COMMAND = "python -m tools.openapi_document"


def document() -> dict[str, Any]:
    """The document as the application gives it."""
    with tempfile.TemporaryDirectory() as home:
        return create_app(fake_backends(Settings(env="test", home=Path(home)))).openapi()


def render(openapi: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(openapi, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(document()))
