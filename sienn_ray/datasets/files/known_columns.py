"""Columns that are known to be those of rows, as a user may have named them."""

from __future__ import annotations

from collections.abc import Collection

from sienn_ray.datasets.columns import normalized_column
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.shapes.detection import detect_shape
from sienn_ray.errors import InvalidDatasetError


def are_known(names: Collection[str], options: ReadingOptions) -> bool:
    """Return whether columns make a row of some shape.

    Args:
        names: Their names in the file.
        options: Its columns say what some of them stand for.
    """
    known = {normalized_column(name): stands_for for name, stands_for in options.columns.items()}
    try:
        detect_shape([known.get(normalized_column(name), name) for name in names], known.values())
    except InvalidDatasetError:
        return False
    return True
