"""Bodies about the statistics of datasets."""

from __future__ import annotations

from pydantic import Field

from sienn_ray.api.schemas.common import DATASET_ID, ResponseBody
from sienn_ray.catalog import CATALOG

_EXAMPLE = {"total": 84321, "mean": 63.93, "min": 12, "p50": 58, "p95": 131, "max": 402}


class Spread(ResponseBody):
    """Distribution of a number over the rows."""

    total: int = Field(description="Over all rows.", examples=[84321])
    mean: float = Field(description="Per row, to two decimals.", examples=[63.93])
    min: int = Field(description="The least of a row.", examples=[12])
    p50: int = Field(description="Half of the rows have no more than this.", examples=[58])
    p95: int = Field(description="95% of the rows have no more than this.", examples=[131])
    max: int = Field(description="The most of a row.", examples=[402])


class TokenCounts(Spread):
    """Distribution of tokens, before rows are cut to `max_length`; of two answers, the longer one counts."""

    prompt: Spread = Field(description="Tokens that the model reads.", examples=[_EXAMPLE])
    completion: Spread = Field(description="Tokens that the model has to produce.", examples=[_EXAMPLE])


class Duplicates(ResponseBody):
    """Rows that repeat an earlier one exactly."""

    num_rows: int = Field(description="How many there are; the first of equal rows doesn't count.", examples=[3])
    lines: list[int] = Field(
        description="Lines (rows, in a JSON array) of the first ten of them.", examples=[[17, 240, 1012]]
    )


class DatasetStatisticsResponse(ResponseBody):
    """Numbers over all rows of a dataset."""

    dataset_id: str = Field(description="The dataset's UUID.", examples=[DATASET_ID])
    model_name: str = Field(
        description="The base model whose tokenizer and chat template the tokens were counted with.",
        examples=[CATALOG[0].id],
    )
    max_length: int = Field(description="Tokens of a row in training.", examples=[512])
    num_rows: int = Field(description="Rows.", examples=[1319])
    characters: Spread = Field(
        description="Characters of the rows, without what a chat template adds.", examples=[_EXAMPLE]
    )
    tokens: TokenCounts = Field(
        description="Tokens of the rows, chat template included.",
        examples=[{**_EXAMPLE, "prompt": _EXAMPLE, "completion": _EXAMPLE}],
    )
    num_rows_over_max_length: int = Field(
        description="Rows with more than `max_length` tokens; `long_rows` of a fine-tune says what becomes of them.",
        examples=[4],
    )
    num_tokens_over_max_length: int | None = Field(
        description="Tokens that these have beyond it, which `long_rows: cut` loses; null for numbers of an earlier "
        "version.",
        examples=[312],
    )
    num_rows_dropped: int = Field(
        description="Rows that training leaves out, since the prompt alone fills `max_length`.", examples=[1]
    )
    duplicates: Duplicates = Field(
        description="Rows that repeat an earlier one exactly.", examples=[{"num_rows": 3, "lines": [17, 240, 1012]}]
    )
    empty_fields: dict[str, int] | None = Field(
        description="Rows with nothing (null, white space, or no such field) in a column of the file, for its first "
        "100 columns; null for datasets that were uploaded before this was noted.",
        examples=[{"instruction": 0, "input": 812, "response": 0}],
    )
