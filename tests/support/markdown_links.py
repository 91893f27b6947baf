"""Relative links and headings of the project's Markdown pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")
_OUTSIDE = re.compile(r"[a-z]+:")
_HTML_TARGET = re.compile(r'(?:src|srcset|href)="([^"]+)"')


def anchors(page: Path) -> set[str]:
    """Return the fragments under which a forge shows the page's headings.

    A heading becomes lower case, loses its punctuation, and has hyphens for spaces; one that is there already gets a
    number.
    """
    tokens = _PARSER.parse(page.read_text())
    seen: Counter[str] = Counter()
    found = set()
    for opening, content in pairwise(tokens):
        if opening.type != "heading_open":
            continue
        text = "".join(child.content for child in content.children or [] if child.type in {"text", "code_inline"})
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(page: Path) -> Iterator[str]:
    """Yield the targets of all links and pictures within the project, those of inline HTML included."""
    for token in _every(_PARSER.parse(page.read_text())):
        targets = [str(token.attrs[name]) for name in ("href", "src") if name in token.attrs]
        if token.type in {"html_inline", "html_block"}:
            targets = _HTML_TARGET.findall(token.content)
        yield from (target for target in targets if not _OUTSIDE.match(target))


def _every(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _every(token.children or [])


def broken_links(page: Path) -> list[str]:
    """Return the links that lead to no file, or to no heading of a Markdown page."""
    broken = []
    for link in links(page):
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (fragment and (target.suffix != ".md" or fragment not in anchors(target))):
            broken.append(link)
    return broken
