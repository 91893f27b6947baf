"""Detection of a dataset's shape from the names of its columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sienn_ray.datasets.columns import normalized_column
from sienn_ray.datasets.schema import DatasetFormat
from sienn_ray.datasets.shapes.names import BESIDE, Part
from sienn_ray.datasets.shapes.table import ACCEPTED, SHAPES, Shape
from sienn_ray.datasets.wording import listed, shown
from sienn_ray.errors import InvalidDatasetError

_MAX_SHAPES = 4
_WAY_OUT = 'or say which of yours they are, as in columns={"Frage": "question", "Antwort": "answer"}'
_WITH_LABEL = frozenset(BESIDE[Part.LABEL])


def detect_shape(columns: Collection[str], wanted: Collection[str] = ()) -> Shape:
    """Tell a dataset's shape from its columns.

    Names match exactly, but for case and for white space at either end.

    Args:
        columns: Their names, where a user maps some after that.
        wanted: Names that a user maps columns to; a shape that uses more of them goes before the others.

    Raises:
        InvalidDatasetError: The columns fit no shape, or more than one.
    """
    names = {normalized_column(column) for column in columns}
    fits = [shape for shape in SHAPES if shape.columns <= names]
    fits = _least(fits, lambda shape: -len(shape.parts.keys() & set(wanted)))
    fits = [shape for shape in fits if not any(_says_more(other, shape) for other in fits)]
    fits = _least(fits, lambda shape: shape.rank)
    fits = list({frozenset(shape.parts): shape for shape in fits}.values())
    if not fits:
        raise InvalidDatasetError(
            f"unknown columns: found {listed(columns)}; accepted column sets: {ACCEPTED}; use one of them, {_WAY_OUT}"
        )
    if len(fits) > 1:
        raise _ambiguous(columns, fits)
    return fits[0]


def detect_format(columns: Collection[str]) -> DatasetFormat:
    """Tell a dataset's format from its columns, as `detect_shape` does.

    Raises:
        InvalidDatasetError: The columns fit no shape, or more than one.
    """
    return format_of(detect_shape(columns), columns)


def format_of(shape: Shape, columns: Collection[str]) -> DatasetFormat:
    """Return the format of rows with a shape, by the columns that stand beside those of the shape."""
    names = {normalized_column(column) for column in columns}
    if shape.makes_answers and not names.isdisjoint(_WITH_LABEL):
        return DatasetFormat.UNPAIRED_PREFERENCE
    if shape.format is DatasetFormat.INSTRUCTION_RESPONSE and "input" in names:
        return DatasetFormat.INSTRUCTION_INPUT_RESPONSE
    return shape.format


def _says_more(other: Shape, shape: Shape) -> bool:
    """Return whether a shape has all columns of another one and more, and isn't of worse rank."""
    return shape.columns < other.columns and other.rank <= shape.rank


def _least(shapes: Sequence[Shape], key: Callable[[Shape], int]) -> list[Shape]:
    least = min(map(key, shapes), default=0)
    return [shape for shape in shapes if key(shape) == least]


def _ambiguous(columns: Collection[str], fits: Sequence[Shape]) -> InvalidDatasetError:
    first, second = fits[0], fits[1]
    spare = next(name for name in second.parts if name not in first.parts)
    return InvalidDatasetError(
        f"ambiguous columns: found {listed(columns)}, which fits {' and '.join(map(str, fits[:_MAX_SHAPES]))}; keep "
        f'the columns of one, or have the others left out, as in columns={{"{spare}": "ignore"}} '
        f"if {shown(spare)} isn't to be learned"
    )
