"""Query parameters that say how rows become text."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Query

from sienn_ray.datasets.render_options import MAX_JSON_CHARS, RenderOptions, SpecialTokens
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.ids import shown

_EXAMPLE = '{"enable_thinking": false}'


def _render_options(
    chat_template_kwargs: Annotated[
        str | None,
        Query(
            max_length=MAX_JSON_CHARS,
            description="Values of the chat template's variables, a JSON object, as a job has them.",
            examples=[_EXAMPLE],
        ),
    ] = None,
    special_tokens: Annotated[
        SpecialTokens,
        Query(description="How strings of special tokens in rows of plain text are encoded.", examples=["text"]),
    ] = "text",
) -> RenderOptions:
    return RenderOptions.of({} if chat_template_kwargs is None else _json(chat_template_kwargs), special_tokens)


def _json(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInputError(
            f"chat_template_kwargs: {shown(text)} is no JSON object of the template's variables; write it as in "
            f"{_EXAMPLE}"
        )
    return found


RenderOptionsDep = Annotated[RenderOptions, Depends(_render_options)]
