"""Bodies about imports of datasets."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.datasets.hub_source import MAX_SOURCE_CHARS
from sienn_ray.datasets.reading_options import MAX_COLUMNS, MAX_NAME_CHARS, ReadingOptions

_Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARS)]


class ImportDatasetRequest(RequestBody):
    """A dataset to import."""

    source: str = Field(
        min_length=1,
        max_length=MAX_SOURCE_CHARS,
        description="`hf:owner/name` on the Hugging Face hub, and where they are needed `/config`, `:split` and "
        "`@revision` behind it, in this order. Without a split, `train` is imported, or the only one.",
        examples=["hf:owner/name", "hf:owner/name/en:test@v1.0"],
    )
    encoding: str | None = Field(
        None, max_length=MAX_NAME_CHARS, description="Encoding of the files where it isn't UTF-8.", examples=[None]
    )
    separator: str | None = Field(
        None, max_length=MAX_NAME_CHARS, description="Separator of CSV files' columns.", examples=[None]
    )
    columns: dict[_Name, _Name] = Field(
        default_factory=dict,
        max_length=MAX_COLUMNS,
        description="Columns of the files by the names that they stand for.",
        examples=[{"problem": "prompt", "solution": "completion"}],
    )

    def options(self) -> ReadingOptions:
        """Return the options of reading.

        Raises:
            InvalidInputError: One is none that is known.
        """
        return ReadingOptions(self.encoding or None, self.separator or None, self.columns)
