"""Names that columns of datasets have, and the part of a row that each of them stands for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, auto


class Part(StrEnum):
    """A part of a row, whatever its column is called."""

    MESSAGES = auto()
    PROMPT = auto()
    COMPLETION = auto()
    CHOSEN = auto()
    REJECTED = auto()
    TEXT = auto()
    # Those below stand beside the parts above.
    SYSTEM = auto()
    HISTORY = auto()  # earlier turns
    INPUT = auto()  # what a prompt is about, as it is put behind the prompt
    TOOLS = auto()
    LABEL = auto()  # whether the answer is a good one (KTO)
    REASONING = auto()  # before the answer
    TEMPLATE_VARIABLES = auto()


PROMPTS = ("instruction", "prompt", "question", "query", "problem")
COMPLETIONS = ("response", "output", "completion", "answer", "solution")
MESSAGES = ("messages", "conversations", "conversation")

# Columns that stand beside a row's main ones, by the part that they are.
BESIDE: Mapping[Part, tuple[str, ...]] = {
    Part.SYSTEM: ("system", "system_prompt", "system_message"),
    Part.HISTORY: ("history",),
    Part.INPUT: ("input", "context", "contexts", "passage"),
    Part.TOOLS: ("tools", "functions"),
    Part.LABEL: ("label", "kto_tag"),
    Part.REASONING: ("reasoning_content", "reasoning", "thinking", "chain_of_thought", "complex_cot", "cot"),
    Part.TEMPLATE_VARIABLES: ("chat_template_kwargs",),
}

# Names of columns that would change what is learned. Where a dataset's shape has no use for one of them, rows that
# fill it are refused, since to ignore it would train on something else than what was meant.
CHANGES_LEARNING = frozenset(
    {
        *(name for names in BESIDE.values() for name in names),
        *("chosen", "rejected", "preferred_output", "non_preferred_output", "rejected_response"),
        *("labels", "weight", "weights", "sample_weight", "loss_weight", "loss", "loss_mask", "loss_scale"),
        *("mask", "train", "train_mask", "train_on_turn", "tool_calls", "function_call"),
        *("image", "images", "audio", "audios", "video", "videos"),
    }
)

# The name that users map a column to so that it is left out, whatever it is called.
IGNORE = "ignore"
