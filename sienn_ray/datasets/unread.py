"""Values of a file that have no form in JSON, in the place of which a row has their description."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unread:
    """A value that is there and isn't read, so that a column which changes what is learned isn't left out unseen.

    Args:
        kind: What it is, for error messages and previews.
    """

    kind: str
