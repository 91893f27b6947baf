from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from sienn_ray.inference.text.detokenizer import detokenizer
from sienn_ray.inference.text.stop_strings import StopStrings
from sienn_ray.inference.text.text_stream import TextStream
from sienn_ray.inference.text.vocabulary import Vocabulary
from tests.unit.inference.small_tokenizers import KINDS, TEXTS, byte_level, sentencepiece


@pytest.fixture(scope="module")
def smollm(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


@pytest.fixture(scope="module", params=[*KINDS, "smollm"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("smollm") if request.param == "smollm" else KINDS[request.param]()


def pieces(stream: Any, token_ids: list[int]) -> list[str]:
    return [*(stream.push(token_id) for token_id in token_ids), stream.flush()]


def byte_ids(tokenizer: Any, text: str | bytes) -> list[int]:
    """One token a byte."""
    vocabulary = Vocabulary(tokenizer)
    raw = text.encode() if isinstance(text, str) else text
    names = tokenizer.backend_tokenizer.get_vocab()
    of_byte = {vocabulary.token_bytes(token_id): token_id for name, token_id in names.items() if _is_byte(name)}
    return [of_byte[bytes([byte])] for byte in raw]


def _is_byte(name: str) -> bool:
    return len(name) == 1 or (name.startswith("<0x") and len(name) == 6)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_real_text_are_the_decoded_text(smollm: Any, text: str) -> None:
    token_ids = smollm.encode(text)
    assert "".join(pieces(detokenizer(Vocabulary(smollm)), token_ids)) == text == smollm.decode(token_ids)


def test_text_that_goes_on_keeps_the_white_space_at_its_start(tokenizer: Any) -> None:
    vocabulary, text = Vocabulary(tokenizer), "Yes, the bakery is open now."
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    for begun in range(1, len(whole)):
        rest = "".join(pieces(TextStream(vocabulary, behind=whole[:begun][-8:]), whole[begun:]))
        start = tokenizer.decode(whole[:begun])
        assert start + rest == tokenizer.decode(whole)


def test_pieces_of_any_tokens_are_the_decoded_text(tokenizer: Any) -> None:
    """Random tokens: broken characters, special tokens, ids that the tokenizer doesn't know."""
    rng, vocabulary = random.Random(0), Vocabulary(tokenizer)
    for _ in range(500):
        few = [rng.randrange(len(tokenizer) + 2) for _ in range(rng.randrange(1, 12))]
        token_ids = rng.choices(few, k=rng.randrange(30))
        decoded = tokenizer.decode(token_ids, skip_special_tokens=True)
        assert "".join(pieces(detokenizer(vocabulary), token_ids)) == decoded
        assert "".join(pieces(TextStream(vocabulary, strip=False), token_ids)) == decoded
        assert "".join(pieces(TextStream(vocabulary), token_ids)) == decoded.strip()


@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_mixed_whole_and_broken_characters_are_the_decoded_text(make: Any) -> None:
    rng, tokenizer = random.Random(1), make()
    parts = [*"aé中🇩👍\n ", *"中👍é".encode(), 0xFF, 0xC3, 0xED, 0xA0]
    for _ in range(1000):
        raw = b"".join(
            part.encode() if isinstance(part, str) else bytes([part]) for part in rng.choices(parts, k=rng.randrange(9))
        )
        token_ids = byte_ids(tokenizer, raw)
        assert "".join(pieces(detokenizer(Vocabulary(tokenizer)), token_ids)) == tokenizer.decode(token_ids)


def test_characters_come_whole_and_at_once() -> None:
    tokenizer = byte_level()
    token_ids = byte_ids(tokenizer, "é中👍!")
    given = pieces(TextStream(Vocabulary(tokenizer)), token_ids)
    assert given == ["", "é", "", "", "中", "", "", "", "👍", "!", ""]


def test_a_broken_character_waits_for_what_follows_only() -> None:
    tokenizer = byte_level()
    token_ids = byte_ids(tokenizer, b"\xf0\x9fA\xe4\xb8")
    assert pieces(TextStream(Vocabulary(tokenizer)), token_ids) == ["", "", "\ufffdA", "", "", "\ufffd"]


def test_sentencepiece_bytes_wait_for_the_end_of_their_run() -> None:
    tokenizer = sentencepiece()
    exclamation = tokenizer.convert_tokens_to_ids("!")
    good, bad = byte_ids(tokenizer, "中"), byte_ids(tokenizer, b"\xff")
    assert pieces(TextStream(Vocabulary(tokenizer)), [*good, exclamation]) == ["", "", "", "中!", ""]
    # The byte behind it makes the whole run invalid, so its characters must not be given early.
    assert pieces(TextStream(Vocabulary(tokenizer)), [*good, *bad, exclamation])[-2] == "\ufffd" * 4 + "!"


def test_special_tokens_within_a_character_are_skipped() -> None:
    tokenizer = byte_level()
    first, second = byte_ids(tokenizer, "é")
    given = pieces(TextStream(Vocabulary(tokenizer)), [first, tokenizer.eos_token_id, second])
    assert given == ["", "", "é", ""]


def test_a_step_decodes_a_few_tokens_however_long_the_text_is() -> None:
    tokenizer = sentencepiece()
    lengths: list[int] = []

    class Counting(Vocabulary):
        def decode(self, token_ids: Any) -> str:
            lengths.append(len(token_ids))
            return super().decode(token_ids)

    stream = TextStream(Counting(tokenizer))
    pieces(stream, tokenizer.convert_tokens_to_ids(["\u2581Hello", "!"]) * 200)
    assert max(lengths) <= 2
    assert len(stream.text) == 200 * len(" Hello!") - 1


@pytest.mark.parametrize(
    ("text", "stop", "expected", "matched"),
    [
        ("one two three", ["two"], "one", "two"),
        ("one two three", ["tw", "two"], "one", "tw"),
        # The one that is complete first wins, though the other began first.
        ("abcd", ["abcd", "bc"], "a", "bc"),
        # Of two that end together, the longer one.
        ("xabc", ["bc", "abc"], "x", "abc"),
        ("stop at once", ["stop"], "", "stop"),
        ("\n\nleading", ["\n"], "", "\n"),
        ("no end here", ["END"], "no end here", None),
        # Beginnings of a stop string that lead nowhere are text.
        ("aab aabaab!", ["aabaac"], "aab aabaab!", None),
        ("aaaab", ["aaab"], "a", "aaab"),
        ("half a st", ["stop"], "half a st", None),
        ("你好。再见", ["。再"], "你好", "。再"),
        ("so 👍🏽 far", ["👍🏽"], "so", "👍🏽"),
        ("  \n padded \n ###", ["###"], "padded", "###"),
        ("anything", ["", "y"], "an", "y"),
        ("", ["x"], "", None),
    ],
)
def test_text_ends_in_front_of_the_stop_string(
    smollm: Any, text: str, stop: list[str], expected: str, matched: str | None
) -> None:
    small = byte_level()
    for tokenizer, token_ids in ((smollm, smollm.encode(text)), (small, byte_ids(small, text))):
        stream = TextStream(Vocabulary(tokenizer), stop)
        assert "".join(pieces(stream, token_ids)) == expected == stream.text
        assert stream.matched_stop == matched


def test_nothing_given_can_become_a_stop_string() -> None:
    tokenizer = byte_level()
    stream = TextStream(Vocabulary(tokenizer), ["abc"])
    assert pieces(stream, byte_ids(tokenizer, "xabab abd")) == ["x", "", "", "ab", "", "ab", "", "", " abd", ""]


def test_a_stop_string_in_the_last_bytes_is_found() -> None:
    tokenizer = sentencepiece()
    stream = TextStream(Vocabulary(tokenizer), ["中"])
    given = pieces(stream, byte_ids(tokenizer, "a中"))
    assert ("".join(given), stream.matched_stop) == ("a", "中")


def test_tokens_behind_the_stop_string_add_nothing() -> None:
    tokenizer = byte_level()
    stream = TextStream(Vocabulary(tokenizer), ["."])
    assert pieces(stream, byte_ids(tokenizer, "a. b.")) == ["a", "", "", "", "", ""]


def test_stop_strings_do_not_depend_on_the_pieces() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        text = "".join(rng.choices("ab ", k=rng.randrange(15)))
        stop = ["".join(rng.choices("ab ", k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 4))]
        expected, matched = by_single_characters(text, stop)
        searched = StopStrings(stop)
        given, rest = "", text
        while rest:
            size = rng.randrange(1, 6)
            given += searched.push(rest[:size])
            rest = rest[size:]
            assert text.startswith(given)
        assert (given + searched.flush(), searched.matched) == (expected, matched)


def by_single_characters(text: str, stop: list[str]) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        if found := [each for each in stop if text[:end].endswith(each)]:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


def test_white_space_waits_for_what_follows() -> None:
    tokenizer = byte_level()
    vocabulary, token_ids = Vocabulary(tokenizer), byte_ids(tokenizer, " \n a \n b \n")
    assert pieces(TextStream(vocabulary), token_ids) == [*[""] * 3, "a", "", "", "", " \n b", "", "", ""]
    assert "".join(pieces(TextStream(vocabulary, strip=False), token_ids)) == " \n a \n b \n"
