"""Names of owners, as issuers, admins and the database have them."""

from __future__ import annotations

import re

# What the database has room for.
MAX_OWNER_CHARS = 255
# In names that are shown: no control characters, no line ends, none that turn the direction of writing or can't be
# seen; joined emoji may stay.
UNSEEN = r"\x00-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_ENDS, _WITHIN = rf"[^{UNSEEN} \xa0]", f"[^{UNSEEN}]"
# As JSON Schema has them, so `^` and `$` mark the ends.
OWNER_PATTERN = f"^{_ENDS}({_WITHIN}{{0,{MAX_OWNER_CHARS - 2}}}{_ENDS})?$"
OWNER_WORDS = f"must have 1 to {MAX_OWNER_CHARS} printable characters, and no blanks at its ends"
_OWNER = re.compile(OWNER_PATTERN)


def is_owner(text: str) -> bool:
    r"""Return whether a text may be an owner's name.

    Example:
        >>> is_owner("https://login.example.org|ada lovelace"), is_owner("ada\n"), is_owner("a" * 256)
        (True, False, False)
    """
    is_unicode = not any("\ud800" <= char <= "\udfff" for char in text)  # the database has no half characters
    return is_unicode and _OWNER.fullmatch(text) is not None
