"""How a URL may be written."""

# ruff: noqa: RUF001  (characters that look like others are what this is about)

from __future__ import annotations

import pytest

from sienn_ray.errors import DestinationError
from sienn_ray.outbound.urls import parsed

TAKEN = [
    ("https://hooks.example.org", "https://hooks.example.org/"),
    ("HTTPS://Hooks.Example.ORG:443/In?a=b", "https://hooks.example.org/In?a=b"),
    ("https://hooks.example.org.?a", "https://hooks.example.org/?a"),
    ("https://example.org:8443/x", "https://example.org:8443/x"),
    ("https://_x.example.org/", "https://_x.example.org/"),
    ("https://1.1.1.1/", "https://1.1.1.1/"),
    ("https://[2606:4700:0:0::1111]:8443/", "https://[2606:4700::1111]:8443/"),
    ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
    ("https://ｅxample.org/", "https://example.org/"),
    ("https://example.org/%2e%2e/x", "https://example.org/%2e%2e/x"),
]
REFUSED = [
    ("", "form"),
    ("example.org", "form"),
    ("//example.org/", "form"),
    ("ftp://example.org/", "form"),
    ("file:///etc/passwd", "form"),
    ("gopher://example.org/", "form"),
    ("unix:///run/docker.sock", "form"),
    ("http://example.org/", "only https://"),
    ("https:///x", "form"),
    ("https:/example.org/", "form"),
    ("https://user@example.org/", "form"),
    ("https://user:secret@example.org/", "form"),
    ("https://example.org:pw@10.0.0.1/", "form"),  # kingfisher:ignore
    ("https://example.org#@10.0.0.1/", "form"),
    ("https://example.org/#x", "form"),
    ("https://example.org:/", "form"),
    ("https://example.org:0x50/", "form"),
    ("https://example.org\\@10.0.0.1/", "backslashes"),
    ("https://example.org/a b", "spaces"),
    (" https://example.org/", "spaces"),
    ("https://exam\tple.org/", "spaces"),
    ("https://example.org/\r\nX-Other: 1", "spaces"),
    ("https://example.org/\x00", "control"),
    ("https://example.org/\u202e", "control"),
    ("https://example.org/é", "beyond ASCII"),
    ("https://example.org:25/", "port 25"),
    ("https://example.org:0/", "port 0"),
    ("https://example.org:99999/", "port 99999"),
    # Other spellings of 127.0.0.1.
    ("https://2130706433/", "looks like an address"),
    ("https://0x7f000001/", "looks like an address"),
    ("https://0x7f.1/", "looks like an address"),
    ("https://127.1/", "looks like an address"),
    ("https://0177.0.0.1/", "looks like an address"),
    ("https://127.0.0.01/", "looks like an address"),
    ("https://017700000001/", "looks like an address"),
    ("https://127.0.0.0x1/", "looks like an address"),
    ("https://0x/", "looks like an address"),
    ("https://１２７.1/", "looks like an address"),
    ("https://②130706433/", "looks like an address"),
    ("https://256.1.1.1/", "looks like an address"),
    ("https://[127.0.0.1]/", "looks like an address"),
    ("https://[::1%25eth0]/", "looks like an address"),
    ("https://[::1%lo]/", "looks like an address"),
    ("https://[v1.fe80]/", "looks like an address"),
    ("https://[]/", "looks like an address"),
    ("https://%31%32%37.0.0.1.example/", "no name"),
    ("https://example..org/", "no name"),
    ("https://-example.org/", "no name"),
    (f"https://{'a' * 64}.org/", "no name"),
    (f"https://{'a.' * 127}org/", "no name"),
    ("https://\u2488example.org/", "internationalized"),
    ("https://example\u2044.org/", "internationalized"),
    (f"https://example.org/{'a' * 2048}", "2068 characters"),
]


@pytest.mark.parametrize(("text", "expected"), TAKEN)
def test_one_spelling(text: str, expected: str) -> None:
    assert parsed(text).text == expected
    assert parsed(expected) == parsed(text)


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_could_be_read_differently_is_refused(text: str, words: str) -> None:
    with pytest.raises(DestinationError, match=words) as raised:
        parsed(text)
    assert "secret" not in raised.value.message


def test_fullwidth_and_ideographic_dots_are_dots() -> None:
    assert parsed("https://１２７。0．0。1/").host == "127.0.0.1"  # and an address that the rules refuse


def test_plain_http_where_it_is_allowed() -> None:
    assert parsed("http://example.org:80/x", allows_http=True).text == "http://example.org/x"
