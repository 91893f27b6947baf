"""Encodings of text that a file may have, a closed list."""

from __future__ import annotations

import re
from encodings.aliases import aliases
from types import MappingProxyType

from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidInputError

# Python's codec of each, by the name that it is shown under: the encodings of the Encoding Standard
# (https://encoding.spec.whatwg.org), without the stateful one, and those of old Macs, DOS and UTF-32.
ENCODINGS = MappingProxyType(
    {
        "utf-8": "utf_8",
        "utf-16": "utf_16",
        "utf-16-le": "utf_16_le",
        "utf-16-be": "utf_16_be",
        "utf-32": "utf_32",
        **{f"windows-{page}": f"cp{page}" for page in range(1250, 1259)},
        "windows-874": "cp874",
        **{f"iso-8859-{part}": f"iso8859_{part}" for part in range(1, 17) if part != 12},
        "macintosh": "mac_roman",
        "mac-cyrillic": "mac_cyrillic",
        "koi8-r": "koi8_r",
        "koi8-u": "koi8_u",
        "cp437": "cp437",
        "cp850": "cp850",
        "cp852": "cp852",
        "cp866": "cp866",
        "shift-jis": "cp932",  # as browsers read it: with Microsoft's characters
        "euc-jp": "euc_jp",
        "gbk": "gbk",
        "gb18030": "gb18030",
        "big5": "big5",
        "euc-kr": "cp949",
    }
)
_ALSO = {"latin-1": "iso8859_1", "latin1": "iso8859_1", "ansi": "cp1252", "sjis": "cp932", "gb2312": "gbk"}
_NAMED = ("utf-8", "utf-16", "windows-1252", "windows-1251", "iso-8859-1", "macintosh", "shift-jis", "gb18030")


def codec_of(name: str) -> str:
    """Return the name that an encoding is shown under, by any name that it has.

    Raises:
        InvalidInputError: It isn't one of the list.

    Example:
        >>> codec_of("CP1252"), codec_of("latin1"), codec_of("UTF8")
        ('windows-1252', 'iso-8859-1', 'utf-8')
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.strip().lower()).strip("-")
    if plain in ENCODINGS:
        return plain
    python_name = plain.replace("-", "_")
    codec = _ALSO.get(plain) or aliases.get(python_name, python_name)
    for shown_name, known in ENCODINGS.items():
        if known == codec:
            return shown_name
    raise InvalidInputError(
        f"encoding: {shown(name)} isn't one that is read here; known are {', '.join(_NAMED)} and others of their kinds"
    )
