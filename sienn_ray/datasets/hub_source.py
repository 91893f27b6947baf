"""Datasets on the Hugging Face hub as users name them: `hf:owner/name/config:split@revision`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id

from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidInputError
from sienn_ray.hub import MAX_REVISION_CHARS, REVISION_PATTERN

PREFIX = "hf:"
MAX_SOURCE_CHARS = 400
DEFAULT_SPLIT = "train"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_FORM = re.compile(
    rf"hf:(?P<repo>{_NAME}/{_NAME})(?:/(?P<config>{_NAME}))?(?::(?P<split>[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}))?"
    rf"(?:@(?P<revision>.{{1,{MAX_REVISION_CHARS}}}))?"
)


@dataclass(frozen=True)
class HubSource:
    """A dataset on the hub, or a part of it.

    Args:
        repo: `owner/name`.
        config: One of the configurations that its card or its folders make; None where it has one.
        split: One of its splits; None is `train`, or the only one.
        revision: Branch, tag or commit; None is the main branch.
    """

    repo: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Read what a user has typed.

        Raises:
            InvalidInputError: It is no source.

        Example:
            >>> HubSource.parsed("hf:owner/name/en:test@v1.0")
            HubSource(repo='owner/name', config='en', split='test', revision='v1.0')
        """
        found = _FORM.fullmatch(text) if len(text) <= MAX_SOURCE_CHARS else None
        if found is None or not _is_repo(found["repo"]):
            raise InvalidInputError(
                f"source {shown(text)} is no dataset on the hub; write it as hf:owner/name, with /config, :split and "
                "@revision behind it where they are needed, as in hf:owner/name/en:train@main. URLs are not taken"
            )
        revision = found["revision"]
        if revision is not None and not re.fullmatch(REVISION_PATTERN, revision):
            raise InvalidInputError(
                f"revision {shown(revision)} of {found['repo']} is no branch, tag or commit (letters, digits, '.', "
                f"'_', '-', '/', at most {MAX_REVISION_CHARS} characters)"
            )
        return cls(found["repo"], found["config"], found["split"], revision)

    def __str__(self) -> str:
        """Return the source as it is written."""
        parts = (("/", self.config), (":", self.split), ("@", self.revision))
        return f"{PREFIX}{self.repo}" + "".join(f"{sign}{text}" for sign, text in parts if text is not None)


def _is_repo(text: str) -> bool:
    try:
        validate_repo_id(text)
    except hub_errors.HFValidationError:
        return False
    return True
