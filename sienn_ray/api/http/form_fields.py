"""Plain fields of a form that comes with a file, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidInputError

MAX_FIELD_BYTES = 16 * 1024
_MAX_FIELDS = 100
_MAX_UNKNOWN = 10


class FormFields:
    """Collects the fields that are known, and the names of others; they may be before the file and behind it.

    Args:
        known: Names of the fields that are kept.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._values: dict[str, list[str]] = {}
        self._unknown: dict[str, None] = {}
        self._name = ""
        self._value: bytearray | None = None

    def begin(self, name: str) -> None:
        """Begin with the next field."""
        self._name = name
        self._value = None
        if name in self._known:
            self._value = bytearray()
        elif len(self._unknown) < _MAX_UNKNOWN:
            self._unknown[name] = None

    def add(self, data: bytes) -> None:
        """Take a piece of the field's value."""
        if self._value is None:
            return
        if len(self._value) + len(data) > MAX_FIELD_BYTES:
            raise InvalidInputError(f"{self._name}: longer than {MAX_FIELD_BYTES:,} bytes; shorten it")
        self._value += data

    def end(self) -> None:
        """Keep the field, which is whole now."""
        if self._value is None:
            return
        try:
            text = self._value.decode()
        except UnicodeDecodeError:
            raise InvalidInputError(f"{self._name}: not UTF-8; send the form's fields in UTF-8") from None
        values = self._values.setdefault(self._name, [])
        if len(values) == _MAX_FIELDS:
            raise InvalidInputError(f"{self._name}: sent more than {_MAX_FIELDS} times; send it once")
        values.append(text)
        self._value = None

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """Values of each field that was sent, in order."""
        return {name: tuple(values) for name, values in self._values.items()}

    @property
    def remarks(self) -> tuple[str, ...]:
        """A sentence for each field that was sent and isn't known."""
        known = ", ".join(self._known)
        return tuple(
            f"the form's field {shown(name)} isn't known and was left aside; known are file, {known}"
            for name in self._unknown
        )
