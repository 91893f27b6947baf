from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from sienn_ray.inference.engine import TokenLogprob
from sienn_ray.inference.sampling.logprobs import Sampled
from sienn_ray.inference.text.vocabulary import Vocabulary
from tests.unit.inference.small_tokenizers import TEXTS, byte_level, sentencepiece


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_tokens_are_those_of_the_text(tiny_model_folder: Path, text: str) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model_folder)
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.is_byte_level
    assert b"".join(vocabulary.token_bytes(token_id) for token_id in tokenizer.encode(text)) == text.encode()


@pytest.mark.parametrize(
    ("make", "name", "token", "token_bytes"),
    [
        (byte_level, "ĠH", " H", b" H"),
        (byte_level, "ðŁ", "\ufffd", b"\xf0\x9f"),
        (byte_level, "<tool é>", "<tool é>", "<tool é>".encode()),
        (byte_level, "<|end|>", "<|end|>", b""),
        (sentencepiece, "\u2581world", " world", b" world"),
        (sentencepiece, "<0xE4>", "\ufffd", b"\xe4"),
        (sentencepiece, "<0x41>", "A", b"A"),
        (sentencepiece, "中", "中", "中".encode()),
        (sentencepiece, "</s>", "</s>", b""),
    ],
)
def test_tokens_one_by_one(make: Any, name: str, token: str, token_bytes: bytes) -> None:
    tokenizer = make()
    token_id = tokenizer.convert_tokens_to_ids(name)
    vocabulary = Vocabulary(tokenizer)
    assert (vocabulary.token(token_id), vocabulary.token_bytes(token_id)) == (token, token_bytes)


def test_ids_beyond_the_tokenizer_are_nothing() -> None:
    tokenizer = byte_level()
    vocabulary = Vocabulary(tokenizer)
    beyond = len(tokenizer) + 5
    assert (vocabulary.token(beyond), vocabulary.token_bytes(beyond), vocabulary.is_text(beyond)) == ("", b"", False)


def test_logprob_has_the_tokens_names_and_bytes() -> None:
    tokenizer = byte_level()
    vocabulary = Vocabulary(tokenizer)
    first, second = tokenizer.convert_tokens_to_ids(["He", "ðŁ"])
    assert vocabulary.logprob(Sampled(first)) is None
    assert vocabulary.logprob(Sampled(first, -0.5, ((second, -0.25), (first, -0.5)))) == TokenLogprob(
        first,
        "He",
        b"He",
        -0.5,
        (TokenLogprob(second, "\ufffd", b"\xf0\x9f", -0.25), TokenLogprob(first, "He", b"He", -0.5)),
    )
