"""The tokens of a tokenizer, as bytes and as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import ByteLevel

from sienn_ray.inference.engine import TokenLogprob
from sienn_ray.inference.sampling.logprobs import Sampled

# How sentencepiece names the 256 tokens that stand for a byte each.
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Sentencepiece's mark for a space.
_SPACE_MARK = "\u2581"


class Vocabulary:
    """The bytes and the text of each token of a tokenizer; made once, shared by all requests.

    Args:
        tokenizer: A tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self.is_byte_level = isinstance(getattr(self._backend, "decoder", None), ByteLevel)
        self._special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._bytes: dict[int, bytes] = {}

    def is_text(self, token_id: int) -> bool:
        """Return whether a token is part of the text: not special, and in the tokenizer's vocabulary.

        A base model's logits may be wider than its tokenizer's vocabulary.
        """
        return token_id not in self._special and self._name(token_id) is not None

    def is_single_byte(self, token_id: int) -> bool:
        """Return whether a token is one of sentencepiece's for a byte, which is text only with those around it."""
        return not self.is_byte_level and _BYTE_TOKEN.fullmatch(self._name(token_id) or "") is not None

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token adds to a text, b"" for special tokens.

        A sentencepiece token keeps its leading space here, which the text loses at its start.
        """
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._to_bytes(token_id)
        return found

    def token(self, token_id: int) -> str:
        """Return a token for people to read: a special one's name; U+FFFD stands for a part of a character."""
        name = self._name(token_id)
        if name is None or token_id in self._special:
            return name or ""
        return self.token_bytes(token_id).decode(errors="replace")

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode tokens without the special ones; spaces in front of punctuation stay."""
        if self._backend is not None:
            # The tokenizer's own method takes twice as long or more, and at some drops spaces.
            text: str = self._backend.decode(list(token_ids), skip_special_tokens=True)
        else:
            text = self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def logprob(self, sampled: Sampled) -> TokenLogprob | None:
        """Return a sampled token's log-probability as in a result; None where the request wants none."""
        if sampled.logprob is None:
            return None
        top = tuple(self._token_logprob(token_id, logprob) for token_id, logprob in sampled.top)
        return self._token_logprob(sampled.token_id, sampled.logprob, top)

    def _token_logprob(self, token_id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(token_id, self.token(token_id), self.token_bytes(token_id), logprob, top)

    def _name(self, token_id: int) -> str | None:
        """Return the vocabulary's name of a token; None for ids beyond the vocabulary."""
        if self._backend is not None:
            name: str | None = self._backend.id_to_token(token_id)
        else:
            name = self._tokenizer.convert_ids_to_tokens(token_id)
        return name

    def _to_bytes(self, token_id: int) -> bytes:
        name = self._name(token_id)
        if name is None or token_id in self._special:
            return b""
        if self.is_byte_level:
            found = [_BYTE_OF.get(character) for character in name]
            known = [byte for byte in found if byte is not None]
            # Added tokens are written as they are, not in the alphabet of bytes.
            return bytes(known) if len(known) == len(found) else name.encode()
        if match := _BYTE_TOKEN.fullmatch(name):
            return bytes([int(match[1], 16)])
        return name.replace(_SPACE_MARK, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Map the visible characters of byte-level BPE to the bytes that they stand for.

    GPT-2's `bytes_to_unicode`: bytes that are visible in Latin-1 are themselves, the others follow from U+0100 on.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
