"""Layout of a row: the keys in which its parts are, for rows of a known shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sienn_ray.datasets.columns import normalized_column, repeated_column
from sienn_ray.datasets.shapes.names import BESIDE, CHANGES_LEARNING, IGNORE, Part
from sienn_ray.datasets.shapes.table import Shape
from sienn_ray.datasets.wording import listed
from sienn_ray.errors import InvalidDatasetError

# Parts that can stand beside those of each kind of shape.
_BESIDE_MESSAGES = frozenset({Part.SYSTEM, Part.TOOLS, Part.LABEL, Part.TEMPLATE_VARIABLES})
_BESIDE_PAIRS = _BESIDE_MESSAGES | {Part.HISTORY, Part.INPUT, Part.REASONING}
_BESIDE_PREFERENCES = _BESIDE_PAIRS - {Part.LABEL, Part.REASONING}
_PART_OF: Mapping[str, Part] = {name: part for part, names in BESIDE.items() for name in names}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file.

    Args:
        key: Its name in the row.
        name: Its name in errors.
        known: The name that it is read under.
    """

    key: str
    name: str
    known: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a row.

    Args:
        parts: Those of the shape.
        beside: Those that stand beside them, by part.
        refused: Those that would change what is learned, and can't be read beside this shape.
        ignored: The others, as the file names them.
    """

    parts: Mapping[Part, Column]
    beside: Mapping[Part, tuple[Column, ...]]
    refused: tuple[Column, ...]
    ignored: tuple[str, ...]


class Columns:
    """Names that a user maps the columns of a file to.

    Args:
        mapped: Names that are known, by the file's own.
    """

    def __init__(self, mapped: Mapping[str, str]) -> None:
        self._known = {normalized_column(name): known for name, known in mapped.items()}
        self.wanted = frozenset(self._known.values()) - {IGNORE}
        self._missing = {normalized_column(name): name for name in mapped}

    def known_names(self, keys: Collection[str]) -> dict[str, str]:
        """Return the keys of a row by the names that are known.

        A column that is called as another one is mapped to is left out, and so is one that is to be ignored.

        Raises:
            InvalidDatasetError: Two columns have the same name.
        """
        names = [normalized_column(key) for key in keys]
        if len(set(names)) < len(names):
            raise InvalidDatasetError(
                f"two columns have the same name, leaving case and outer spaces aside: {repeated_column(keys)}"
            )
        if not self._known:
            return dict(zip(names, keys, strict=True))
        for name in names:
            self._missing.pop(name, None)
        return {
            self._known.get(name, name): key
            for name, key in zip(names, keys, strict=True)
            if self._known.get(name) != IGNORE and (name in self._known or name not in self.wanted)
        }

    @property
    def missing(self) -> tuple[str, ...]:
        """Names that a user maps, and that no row had so far."""
        return tuple(self._missing.values())


def layout_of(shape: Shape, columns: Columns, keys: Collection[str], *, is_labelled: bool) -> Layout:
    """Find the parts of a row that has these keys.

    Args:
        shape: The shape of the dataset.
        columns: The user's names.
        keys: The row's keys.
        is_labelled: Whether the rows of the dataset have labels.

    Raises:
        InvalidDatasetError: A column of the shape isn't there, or two have the same name.
    """
    names = columns.known_names(keys)
    for name in shape.parts:
        if name not in names:
            raise InvalidDatasetError(f"column '{name}' is missing; the row has {listed(keys)}")
    parts = {part: _column(names[name], name) for name, part in shape.parts.items()}
    allowed = _allowed(shape) - (frozenset() if is_labelled else {Part.LABEL})
    beside: dict[Part, tuple[Column, ...]] = {}
    refused, ignored = list[Column](), list[str]()
    for name, key in names.items():
        part = _PART_OF.get(name)
        if name in shape.columns:
            if name not in shape.parts:
                ignored.append(key)
        elif part in allowed:
            beside[part] = (*beside.get(part, ()), _column(key, name))
        elif name in CHANGES_LEARNING:
            refused.append(_column(key, name))
        else:
            ignored.append(key)
    if is_labelled and Part.LABEL not in beside:
        raise InvalidDatasetError(f"column 'label' is missing, which the first row has; the row has {listed(keys)}")
    read = set(names.values())
    ignored.extend(key for key in keys if key not in read)
    return Layout(parts, beside, tuple(refused), tuple(ignored))


def _column(key: str, known: str) -> Column:
    return Column(key, normalized_column(key), known)


def _allowed(shape: Shape) -> frozenset[Part]:
    parts = set(shape.parts.values())
    if Part.TEXT in parts:
        return frozenset()
    if Part.MESSAGES in parts:
        return _BESIDE_MESSAGES if Part.REJECTED not in parts else _BESIDE_MESSAGES - {Part.LABEL}
    if Part.COMPLETION in parts and Part.REJECTED not in parts:
        return _BESIDE_PAIRS
    return _BESIDE_PREFERENCES
