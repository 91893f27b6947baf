"""Prompts of `benchmarks/serving.py`: the same for everyone, drawn from a seed."""

from __future__ import annotations

import random
from typing import Any

MIN_TOKENS, MAX_TOKENS = 32, 512
WORDS = (
    "heron juniper cobalt walnut ember saffron quartz lagoon meadow copper the a of and in to is was for on that with "
    "at by from it an be this which or are not have were their one all when there can more if who so about up out new "
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work number night point home water room mother area money as"
)


def make_prompts(tokenizer: Any, count: int, seed: str) -> list[str]:
    """Random words; short prompts are more common than long ones, and any count of prompts has its share of all."""
    chance = random.Random(seed)
    span = MAX_TOKENS / MIN_TOKENS
    lengths = [round(MIN_TOKENS * span ** ((number + chance.random()) / count)) for number in range(count)]
    chance.shuffle(lengths)
    return [_prompt(tokenizer, num_tokens, chance) for num_tokens in lengths]


def _prompt(tokenizer: Any, num_tokens: int, chance: random.Random) -> str:
    """Words of exactly so many tokens."""
    words = chance.choices(WORDS.split(), k=num_tokens)
    while _count(tokenizer, words) > num_tokens:
        words.pop()
    return " ".join(words + ["the"] * (num_tokens - _count(tokenizer, words)))


def _count(tokenizer: Any, words: list[str]) -> int:
    return len(tokenizer(" ".join(words))["input_ids"])
