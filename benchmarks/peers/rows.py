"""Chat rows as tokens, by one definition for all peers, and the loss on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORE_INDEX = -100


@dataclass(frozen=True)
class ChatRow:
    """A conversation, cut where the model has to go on: `completion` is the last message, the assistant's."""

    prompt: list[dict[str, str]]
    completion: list[dict[str, str]]


@dataclass(frozen=True)
class TokenRow:
    """`labels[i]` is `input_ids[i]` where the model has to produce that token, else `IGNORE_INDEX`."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_completion_tokens(self) -> int:
        """Tokens that the loss counts; the first token of a row is never predicted."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


def read_rows(path: Path) -> list[ChatRow]:
    """Read `{"messages": [...]}` JSON lines.

    Raises:
        ValueError: A row isn't one question and its answer; further answers would be a part of the prompt.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        messages = json.loads(line)["messages"]
        if [message["role"] for message in messages][-2:] != ["user", "assistant"] or len(messages) > 3:
            raise ValueError(f"{path}, line {number}: the peers take one question and its answer in a row")
        rows.append(ChatRow(messages[:-1], messages[-1:]))
    return rows


def tokenize(tokenizer: Any, rows: list[ChatRow], max_length: int) -> list[TokenRow]:
    """The rows that have something to learn within `max_length` tokens.

    The prompt is the chat template's, up to where the model has to go on. The completion ends with the end of turn,
    without the newline that the template puts behind it.
    """
    tokenized = [_tokenize(tokenizer, row, max_length) for row in rows]
    return [row for row in tokenized if row.num_completion_tokens]


def _tokenize(tokenizer: Any, row: ChatRow, max_length: int) -> TokenRow:
    prompt: str = tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True)
    whole: str = tokenizer.apply_chat_template(row.prompt + row.completion, tokenize=False)
    completion = whole[len(prompt) : whole.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)]
    prompt_ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    completion_ids: list[int] = tokenizer(completion, add_special_tokens=False)["input_ids"]
    labels = [IGNORE_INDEX] * len(prompt_ids) + completion_ids
    return TokenRow((prompt_ids + completion_ids)[:max_length], labels[:max_length])


def mean_loss(model: Any, rows: list[TokenRow]) -> float:
    """Cross entropy per completion token (nats): summed over all rows, then divided by the number of tokens."""
    import torch

    total, num_tokens = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for row in rows:
            labels = torch.tensor(row.labels[1:])
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].float()  # (tokens - 1, vocabulary)
            total += torch.nn.functional.cross_entropy(
                logits, labels, ignore_index=IGNORE_INDEX, reduction="sum"
            ).item()
            num_tokens += row.num_completion_tokens
    return total / num_tokens
