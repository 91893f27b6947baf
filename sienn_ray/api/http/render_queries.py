"""Query parameters that say how rows become text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query

from sienn_ray.datasets.render_options import MAX_JSON_CHARS, RenderOptions
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.ids import shown
from sienn_ray.training.config import SpecialTokens

_EXAMPLE = '{"enable_thinking": false}'


@dataclass(frozen=True)
class RenderQuery:
    """Options of how rows become text, as they were asked for.

    Args:
        options: The options.
        is_auto: Whether nobody has said how special tokens in plain text are meant.
    """

    options: RenderOptions
    is_auto: bool


def _render_query(
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
        Query(
            description="How strings of special tokens in rows of plain text are encoded, as a job has it.",
            examples=["auto"],
        ),
    ] = "auto",
) -> RenderQuery:
    variables = {} if chat_template_kwargs is None else _json(chat_template_kwargs)
    is_auto = special_tokens == "auto"
    return RenderQuery(RenderOptions.of(variables, "text" if is_auto else special_tokens), is_auto)


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


RenderQueryDep = Annotated[RenderQuery, Depends(_render_query)]
