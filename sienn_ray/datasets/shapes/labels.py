"""Labels that say whether an answer is a good one."""

from __future__ import annotations

from sienn_ray.datasets.wording import kind_of, shown
from sienn_ray.errors import InvalidDatasetError

_WORDS = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}


def is_good(value: object, name: str) -> bool:
    """Read a label; `name` is its column's.

    Raises:
        InvalidDatasetError: It is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else None
    if word in _WORDS:
        return _WORDS[word]
    found = shown(value) if isinstance(value, str) else value if isinstance(value, int | float) else kind_of(value)
    raise InvalidDatasetError(
        f"column '{name}' must be true or false, or 1 or 0, and say whether the answer is a good one, got {found}; if "
        f'it is something else, have it left out by columns={{"{name}": "ignore"}}'
    )
