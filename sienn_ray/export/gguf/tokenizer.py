"""A tokenizer in GGUF: its tokens, merges and special tokens, and llama.cpp's name of its pre-tokenizer."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gguf

from sienn_ray.errors import ExportError

logger = logging.getLogger(__name__)

_TOKENIZER_FILE = "tokenizer.json"
# How byte-level BPE cuts text before it merges, by the expression or the steps in tokenizer.json; the names are those
# of `tokenizer.ggml.pre` (llama.cpp, src/llama-vocab.cpp).
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_NAME_OF_EXPRESSION = {
    _LETTERS + r"\p{N}" + _REST: "qwen2",
    _LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, tokenizer: Any, num_tokens: int, template: str | None) -> None:
    """Write a tokenizer.

    Args:
        writer: Where to.
        folder: The tokenizer's files.
        tokenizer: The same, loaded.
        num_tokens: Rows of the embedding matrix; those without a token get a name.
        template: Chat template that the model was trained with.

    Raises:
        ExportError: It isn't byte-level BPE, or cuts text in a way that has no name.
    """
    name = pre_tokenizer_name(json.loads((folder / _TOKENIZER_FILE).read_text(encoding="utf-8")))
    tokens, types = _tokens(tokenizer, num_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=num_tokens)
    for kind in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{kind}_token_id")
        if number is not None:
            special.special_token_ids[kind] = number
    # The chat template has all that a prompt begins with; another BOS before it was never seen in training.
    special.add_special_token = {"bos": False}
    special.chat_template = template
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells of every key
    special.add_to_gguf(writer, quiet=True)


def pre_tokenizer_name(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for the way that a tokenizer cuts text.

    Args:
        tokenizer: The content of tokenizer.json.

    Raises:
        ExportError: It isn't byte-level BPE, or cuts text in a way that has no name.
    """
    kind = tokenizer["model"]["type"]
    steps = _steps(tokenizer.get("pre_tokenizer"))
    if kind != "BPE" or tokenizer["model"].get("byte_fallback") or "ByteLevel" not in [step["type"] for step in steps]:
        raise ExportError(
            "GGUF is written for byte-level BPE tokenizers, as Llama 3, Qwen and SmolLM have; this one is another "
            f"{kind}. Export it as huggingface"
        )
    has_own_expression = next(step for step in steps if step["type"] == "ByteLevel").get("use_regex", True)
    expressions = [step["pattern"].get("Regex", "") for step in steps if step["type"] == "Split"]
    digits = [step for step in steps if step["type"] == "Digits"]
    if has_own_expression and not expressions:
        return "smollm" if digits and digits[0].get("individual_digits") else "gpt-2"
    names = [_NAME_OF_EXPRESSION.get(expression) for expression in expressions]
    if len(names) != 1 or names[0] is None or digits or has_own_expression:
        raise ExportError(
            "the tokenizer cuts text in a way that has no name in GGUF here, and llama.cpp would see other tokens than "
            "the model was trained on; export as huggingface"
        )
    return names[0]


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    steps: list[dict[str, Any]] = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return steps


def _tokens(tokenizer: Any, num_tokens: int) -> tuple[list[str], list[int]]:
    """Text and type of every token."""
    text_of = {number: text for text, number in tokenizer.get_vocab().items()}
    if text_of and max(text_of) >= num_tokens:
        raise ExportError(f"the tokenizer has token {max(text_of)}, the model only {num_tokens} embeddings")
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for number in range(num_tokens):
        text = text_of.get(number)
        tokens.append(f"[PAD{number}]" if text is None else text)
        types.append(int(_type(text, added.get(number))))
    return tokens, types


def _type(text: str | None, added: Any) -> gguf.TokenType:
    if text is None:
        return gguf.TokenType.UNUSED
    if added is None:
        return gguf.TokenType.NORMAL
    is_control = added.special or (text.startswith("<|") and text.endswith("|>"))
    return gguf.TokenType.CONTROL if is_control else gguf.TokenType.USER_DEFINED
