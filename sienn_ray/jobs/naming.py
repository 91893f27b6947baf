"""Limits of a job's name and labels, whichever way it is started."""

from __future__ import annotations

import re

from sienn_ray.access.owners import OWNER_PATTERN, OWNER_WORDS, UNSEEN

MAX_NAME_CHARS = 200
MAX_LABELS = 32
MAX_LABEL_KEY_CHARS = 63
MAX_LABEL_VALUE_CHARS = 255

_PRINTABLE = f"[^{UNSEEN}]"
_LABEL_KEY = f"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_LABEL_KEY_CHARS - 1}}}"

# As JSON Schema has them, so `^` and `$` mark the ends.
PRINTABLE_PATTERN = f"^{_PRINTABLE}*$"
LABEL_KEY_PATTERN = f"^{_LABEL_KEY}$"
# A label on a command line or in a filter: `key=value`.
LABEL_PATTERN = f"^{_LABEL_KEY}={_PRINTABLE}{{0,{MAX_LABEL_VALUE_CHARS}}}$"

LABEL_WORDS = (
    f"must be KEY=VALUE, the key of up to {MAX_LABEL_KEY_CHARS} letters, digits, '_', '.' and '-', the value of up to "
    f"{MAX_LABEL_VALUE_CHARS} printable characters"
)
# What these patterns ask for, since nobody reads them.
WORDS_OF_PATTERNS = {
    PRINTABLE_PATTERN: "must have printable characters only, and no line breaks",
    LABEL_KEY_PATTERN: f"must have 1 to {MAX_LABEL_KEY_CHARS} letters, digits, '_', '.' and '-', the first no sign",
    LABEL_PATTERN: LABEL_WORDS,
    OWNER_PATTERN: OWNER_WORDS,
}

_NAME = re.compile(f"{_PRINTABLE}{{1,{MAX_NAME_CHARS}}}")
_LABEL = re.compile(LABEL_PATTERN.removeprefix("^").removesuffix("$"))


def is_name(text: str) -> bool:
    """Return whether a job can have this name."""
    return _NAME.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Return whether this is a label in the form `key=value`."""
    return _LABEL.fullmatch(text) is not None
