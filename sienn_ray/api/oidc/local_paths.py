"""Paths of this service that a login may lead back to: never to another site (open redirect)."""

from __future__ import annotations

import re

from sienn_ray.errors import InvalidInputError

# One slash, then no second one: browsers take `//host` and `/\host` for another host, and leave out control characters
# before they look.
_LOCAL = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
_MAX_CHARS = 2048


def checked_local_path(path: str) -> str:
    """Return a path that leads to this service and nowhere else.

    Raises:
        InvalidInputError: It may lead elsewhere.

    Example:
        >>> checked_local_path("/docs?x=1#y")
        '/docs?x=1#y'
    """
    if len(path) > _MAX_CHARS or not _LOCAL.fullmatch(path):
        raise InvalidInputError(
            f"next is {path[:100]!a}, but must be a path of this service, such as /docs, of at most "
            f"{_MAX_CHARS} characters of ASCII"
        )
    return path
