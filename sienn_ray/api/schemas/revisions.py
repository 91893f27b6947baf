"""Revisions of base models, as users ask for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from sienn_ray.hub import MAX_REVISION_CHARS, REVISION_PATTERN

# An example, as it is shown in the interactive documentation.
REVISION = "7ae557604adf67be50417f59c2c2f167def9a775"
REVISION_WORDS = (
    "Branch, tag or commit of the base model on the hub; by default its main branch. What it stands for is resolved "
    "once, to a commit."
)

Revision = Annotated[str, StringConstraints(min_length=1, max_length=MAX_REVISION_CHARS, pattern=REVISION_PATTERN)]
