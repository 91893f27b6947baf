"""Tokenizers of each kind, small and without a file, with tokens that are parts of characters."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Hello, world! It's 5 o'clock.",
    "  two spaces, then\n\n\tmore  ",
    "日本語 和 中文、都 可以。",
    "flags 🇩🇪🇫🇷 family 👨‍👩‍👧‍👦 skin 👍🏽 e\u0301",
    "Straße naïve Ελληνικά עברית हिन्दी",
    "\u2581 is sentencepiece's mark, \ufffd a replacement, <0x41> no byte",
]
_WORDS = [
    "Hello",
    "\u2581Hello",
    "\u2581world",
    "ing",
    "\u2581",
    "\u2581\u2581",
    "a",
    "\u2581a",
    "!",
    "中",
    "\ufffd",
    "\n",
]


def _wrapped(tokenizer: Tokenizer, **special: str) -> Any:
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special.values()])
    tokenizer.add_tokens([AddedToken("<tool é>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def byte_level() -> Any:
    """GPT-2's and Llama 3's kind: every byte is a token, and a few tokens have more of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # The first two bytes of an emoji, the end of one with a space behind it, a word.
    longer = ["ðŁ", "ĳį", "ĠH", "He", "ll"]
    vocab = {token: number for number, token in enumerate([*alphabet, *longer])}
    merges = [(token[0], token[1:]) for token in longer]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _wrapped(tokenizer, eos_token="<|end|>")


def sentencepiece(*, is_stripped: bool = True) -> Any:
    """Llama 2's kind (Gemma's without the strip): bytes stand in for characters that have no token."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *_WORDS]
    vocab = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if is_stripped else [])])
    return _wrapped(tokenizer, eos_token="</s>")


def metaspace() -> Any:
    """T5's kind, without tokens for bytes."""
    vocab = [("<unk>", 0.0), *((word, -1.0) for word in _WORDS)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0))
    tokenizer.decoder = decoders.Metaspace()
    return _wrapped(tokenizer, eos_token="</s>")


def word_piece() -> Any:
    """BERT's kind, which writes a space in front of most tokens."""
    names = ["[UNK]", "hello", "##ing", "world", ".", ",", "it", "'", "s", "do", "not", "##\u00e9"]
    tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return _wrapped(tokenizer, sep_token="[SEP]")


KINDS = {
    "byte level": byte_level,
    "sentencepiece": sentencepiece,
    "sentencepiece without strip": lambda: sentencepiece(is_stripped=False),
    "metaspace": metaspace,
    "word piece": word_piece,
}
