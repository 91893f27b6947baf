"""Bodies about rows as the model reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sienn_ray.api.schemas.common import DATASET_ID, ResponseBody
from sienn_ray.api.schemas.revisions import REVISION
from sienn_ray.catalog import CATALOG

_TEXT = "<|im_start|>user\nWho sings?<|im_end|>\n<|im_start|>assistant\nOdalys.<|im_end|>"
_SPAN = {"start": 61, "end": 78, "num_tokens": 5}
_TOKEN = {"start": 0, "end": 12, "token": "<|im_start|>", "is_control": True}  # nosec B105 # a special token
_EXAMPLE = {
    "side": None,
    "text": _TEXT,
    "truncated": False,
    "num_chars": len(_TEXT),
    "num_tokens": 17,
    "num_learned_tokens": 5,
    "left_out": False,
    "learned": [_SPAN],
    "special_tokens": [_TOKEN],
    "cut": None,
}


class LearnedSpanBody(ResponseBody):
    """A stretch of the text that the model has to produce: the loss counts its tokens."""

    start: int = Field(description="Its first character, 0-based, in Unicode code points.", examples=[61])
    end: int = Field(description="The character behind its last one.", examples=[78])
    num_tokens: int = Field(description="Tokens of it that the loss counts.", examples=[5])


class SpecialTokenBody(ResponseBody):
    """The string of a special token in the text."""

    start: int = Field(description="Its first character.", examples=[0])
    end: int = Field(description="The character behind its last one.", examples=[12])
    token: str = Field(description="The string.", examples=["<|im_start|>"])
    is_control: bool = Field(
        description="Whether the model reads it as the special token; false where somebody wrote it in a row, which "
        "stays ordinary text.",
        examples=[True],
    )


class CutBody(ResponseBody):
    """The place where `max_length` cuts."""

    position: int = Field(description="The first character that the model doesn't read.", examples=[1840])
    num_tokens: int = Field(description="Tokens that it doesn't read.", examples=[37])


class RenderedExampleBody(ResponseBody):
    """One token sequence of training, as text."""

    side: Literal["chosen", "rejected"] | None = Field(
        description="In a preference dataset, the answer that it has; else null.", examples=[None]
    )
    text: str = Field(
        description="The text with all that the chat template adds, and with what is cut off; its first 50,000 "
        "characters.",
        examples=[_TEXT],
    )
    truncated: bool = Field(description="Whether there is more text than that.", examples=[False])
    num_chars: int = Field(description="Characters of the whole text.", examples=[len(_TEXT)])
    num_tokens: int = Field(description="Tokens that the model reads.", examples=[17])
    num_learned_tokens: int = Field(description="Those of them that the loss counts.", examples=[5])
    left_out: bool = Field(
        description="Whether it isn't trained on: it has no room for an answer, or its row is left out.",
        examples=[False],
    )
    learned: list[LearnedSpanBody] = Field(
        description="What the model has to produce, as far as it is read; at most 1,000 stretches.", examples=[[_SPAN]]
    )
    special_tokens: list[SpecialTokenBody] = Field(
        description="Special tokens, and what looks like them; at most 1,000.", examples=[[_TOKEN]]
    )
    cut: CutBody | None = Field(
        description="Where `max_length` cuts; null where it doesn't.", examples=[{"position": 1840, "num_tokens": 37}]
    )


class RenderedRowBody(ResponseBody):
    """One row as the model reads it."""

    row: int = Field(description="0-based number.", examples=[0])
    line: int = Field(description="1-based line (CSV, JSONL) or row (JSON array) in the file.", examples=[2])
    fate: Literal["whole", "cut", "split", "left_out"] | None = Field(
        description="What training makes of it: it is read `whole`, `cut` at `max_length`, `split` into several "
        "examples, or `left_out`; null where the chat template refuses it.",
        examples=["whole"],
    )
    num_tokens_left_out: int = Field(description="Tokens beyond `max_length` of which nothing is read.", examples=[0])
    num_examples: int = Field(description="Examples that it makes.", examples=[1])
    examples: list[RenderedExampleBody] = Field(
        description="The first 50 of these. A conversation makes several where a chat template renders an answer "
        "otherwise once the conversation goes on, or where it is split; a preference row has two, which are compared.",
        examples=[[_EXAMPLE]],
    )
    fault: str | None = Field(description="Why the chat template refuses the row; else null.", examples=[None])


class RenderedRows(ResponseBody):
    """Rows as the model reads them."""

    dataset_id: str = Field(description="The dataset's UUID.", examples=[DATASET_ID])
    model_name: str = Field(
        description="The base model whose tokenizer and chat template render.", examples=[CATALOG[0].id]
    )
    revision: str | None = Field(
        description="Its commit; null where none is known, as of a base model from a package.", examples=[REVISION]
    )
    max_length: int = Field(description="Tokens of an example.", examples=[512])
    long_rows: str = Field(description="What becomes of rows with more.", examples=["cut"])
    rows: list[RenderedRowBody] = Field(
        description="This page; fewer rows than asked for where they are very long.",
        examples=[
            [
                {
                    "row": 0,
                    "line": 2,
                    "fate": "whole",
                    "num_tokens_left_out": 0,
                    "num_examples": 1,
                    "examples": [_EXAMPLE],
                    "fault": None,
                }
            ]
        ],
    )
    num_rows: int = Field(description="Rows of the dataset.", examples=[1319])
    next_offset: int | None = Field(
        description="`offset` of the next page; null after the last one, and for a single `row`.", examples=[1]
    )
