"""Rendered rows without a tokenizer: made up at once."""

from __future__ import annotations

import asyncio

from sienn_ray.datasets.rendered_schema import (
    Cut,
    LearnedSpan,
    RenderedExample,
    RenderedPage,
    RenderedRow,
    RenderingRequest,
    SpecialToken,
)
from sienn_ray.errors import InvalidInputError

NUM_ROWS = 3
TEXT = "<|im_start|>user\nHi <b> & [red]<|im_end|>\n<|im_start|>assistant\nHello<|im_end|> and more"


def rendered_row(number: int) -> RenderedRow:
    """A row whose answer is learned, and whose end is cut off; the last one is refused."""
    if number == NUM_ROWS - 1:
        return RenderedRow(number, number + 2, None, fault="the base model's chat template refuses a conversation: no")
    start = TEXT.index("Hello")
    end = TEXT.index(" and more")
    example = RenderedExample(
        side=None,
        text=TEXT,
        num_chars=len(TEXT),
        num_tokens=12,
        num_learned_tokens=2,
        is_left_out=False,
        spans=(LearnedSpan(start, end, 2),),
        special_tokens=(
            SpecialToken(0, 12, "<|im_start|>", is_control=True),
            SpecialToken(end - 10, end, "<|im_end|>", is_control=True),
        ),
        cut=Cut(end, 3),
    )
    return RenderedRow(number, number + 2, "cut", num_tokens_left_out=3, num_examples=1, examples=(example,))


class FakeRenderings:
    """Renders `NUM_ROWS` rows at once; after `hold()` never.

    Attributes:
        asked: Requests in order.
        error: Raised instead, if one is set.
        num_running: Requests under way.
    """

    def __init__(self) -> None:
        self.asked: list[RenderingRequest] = []
        self.error: Exception | None = None
        self.num_running = 0
        self.max_running = 0
        self._is_held = False

    def hold(self) -> None:
        """Answer no further request."""
        self._is_held = True

    async def render(self, request: RenderingRequest) -> RenderedPage:
        self.asked.append(request)
        self.num_running += 1
        self.max_running = max(self.max_running, self.num_running)
        try:
            if self._is_held:
                await asyncio.Event().wait()
        finally:
            self.num_running -= 1
        if self.error:
            raise self.error
        if request.offset >= NUM_ROWS:
            raise InvalidInputError(f"row {request.offset} isn't there: the dataset has {NUM_ROWS} rows")
        numbers = range(request.offset, min(request.offset + request.limit, NUM_ROWS))
        return RenderedPage(tuple(map(rendered_row, numbers)), NUM_ROWS)
