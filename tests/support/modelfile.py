"""Reads a Modelfile by the rules of Ollama's parser (its parser/parser.go), into commands and their values."""

from __future__ import annotations

_COMMANDS = {
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "renderer",
    "parser",
    "requires",
    "parameter",
    "message",
}
_QUOTES = '"""'


def parse(text: str) -> list[tuple[str, str]]:
    """Commands by name; a parameter's is its own name.

    A value ends at the first white space behind which it is whole: one that begins with quotes is whole once they are
    closed. Characters that can't be printed are dropped, as Ollama drops them, but for white space within quotes.
    """
    commands: list[tuple[str, str]] = []
    rest = text
    while rest := rest.lstrip():
        if rest.startswith("#"):
            _, _, rest = rest.partition("\n")
            continue
        name, rest = _word(rest)
        name = name.lower()
        assert name in _COMMANDS, f"no command: {name!r}"
        if name == "parameter":
            name, rest = _word(rest.lstrip())
            assert name.replace("_", "a").isalnum(), f"no parameter: {name!r}"
        value, rest = _value(rest.lstrip(" \t"))
        commands.append(("model" if name == "from" else name, value))
    assert "model" in dict(commands), "no FROM line"
    return commands


def _word(text: str) -> tuple[str, str]:
    word = text.split(maxsplit=1)[0]
    return word, text[len(word) :]


def _value(text: str) -> tuple[str, str]:
    read = ""
    for index, character in enumerate(text):
        if character.isspace():
            value = _unquoted(read)
            if value is not None:
                return value, text[index:]
            read += character
        elif character.isprintable():
            read += character
    value = _unquoted(read)
    assert value is not None, f"the quotes are never closed: {read[:60]!r}"
    return value, ""


def _unquoted(read: str) -> str | None:
    """The value, or None while its quotes are open."""
    stripped = read.strip()
    for quotes in (_QUOTES, '"'):
        if stripped.startswith(quotes):
            is_closed = len(stripped) >= 2 * len(quotes) and stripped.endswith(quotes)
            return stripped[len(quotes) : -len(quotes)] if is_closed else None
    return stripped
