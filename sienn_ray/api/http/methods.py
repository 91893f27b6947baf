"""Methods of HTTP, by what they do."""

from __future__ import annotations

# Those that change nothing, by RFC 9110.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
