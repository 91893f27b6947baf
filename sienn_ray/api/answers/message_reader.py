"""The parts of an assistant's message, read from its text while it comes: reasoning, content, calls of tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sienn_ray.api.answers.written_calls import END, START, Tools, bare_calls, may_be_bare, tagged_call
from sienn_ray.inference.engine import ToolCall

_THINK, _END_OF_THINK = "<think>", "</think>"


@dataclass(frozen=True)
class Piece:
    """A piece of one part of a message; the others are empty."""

    reasoning: str = ""
    content: str = ""
    call: ToolCall | None = None


class MessageReader:
    """Takes a message's text in pieces and gives the pieces of its parts.

    Nothing is given that may turn out to be a part of a mark. A call that is broken is content, as it was written.
    White space around parts is dropped.

    Args:
        tools: The tools that may be called; without any, calls are content.
        reads_reasoning: Whether a block of reasoning at the beginning is a part of its own; else it is content.
        begins_in_reasoning: Whether the prompt has opened that block.
    """

    def __init__(self, tools: Tools = (), *, reads_reasoning: bool = True, begins_in_reasoning: bool = False) -> None:
        self._tools = tools
        self._held = ""
        self._has_content = False
        self._is_called = False
        self._has_reasoning = False
        # Whether all of the answer may be calls without marks; None before it begins.
        self._is_bare: bool | None = None if tools else False
        # The block may yet begin, it goes on, or it is over.
        self._may_think = reads_reasoning
        self._thinks = self._has_block = reads_reasoning and begins_in_reasoning

    def push(self, text: str) -> Iterator[Piece]:
        """Add text; gives what no later text can change."""
        self._held += text
        if self._may_think and not self._begun_thinking():
            return
        if self._thinks:
            yield from self._reasoning()
        if not self._thinks and not self._may_think:
            yield from self._answer()

    def end(self) -> Iterator[Piece]:
        """End the text; gives what was held back."""
        if self._is_bare:
            calls = bare_calls(self._held, self._tools)
            if calls:
                self._held = ""
                yield from (Piece(call=call) for call in calls)
            self._is_bare = False
            yield from self._answer()
        held, self._held = self._held.rstrip(), ""
        if self._thinks:
            yield from _reasoning_of(held if self._has_reasoning else held.lstrip())
        elif self._is_called and (call := tagged_call(held.removeprefix(START), self._tools)) is not None:
            yield Piece(call=call)
        else:
            yield from self._content(held)

    def _begun_thinking(self) -> bool:
        """Look whether the text begins with the mark of reasoning; False while that is open."""
        begun = self._held.lstrip()
        if begun.startswith(_THINK):
            self._thinks = self._has_block = True
            self._held = begun.removeprefix(_THINK)
        elif _THINK.startswith(begun):
            return False
        self._may_think = False
        return True

    def _reasoning(self) -> Iterator[Piece]:
        end = self._held.find(_END_OF_THINK)
        if end >= 0:
            said = self._held[:end].rstrip()
            self._held = self._held[end + len(_END_OF_THINK) :]
            self._thinks = False
        else:
            size = _free(self._held, _END_OF_THINK)
            said, self._held = self._held[:size], self._held[size:]
        said = said if self._has_reasoning else said.lstrip()
        self._has_reasoning = self._has_reasoning or bool(said)
        yield from _reasoning_of(said)

    def _answer(self) -> Iterator[Piece]:
        if not self._tools:
            held, self._held = self._held, ""
            yield from self._content(held)
            return
        if self._is_bare is None and self._held.strip():
            self._is_bare = may_be_bare(self._held)
        if self._is_bare is not False:  # only the whole answer tells
            return
        while True:
            if self._is_called:
                end = self._held.find(END)
                if end < 0:
                    return
                written, self._held = self._held[:end], self._held[end + len(END) :]
                self._is_called = False
                call = tagged_call(written.removeprefix(START), self._tools)
                if call is None:
                    yield from self._content(written + END)
                else:
                    yield Piece(call=call)
            start = self._held.find(START)
            if start < 0:
                size = _free(self._held, START)
                free, self._held = self._held[:size], self._held[size:]
                yield from self._content(free)
                return
            before, self._held = self._held[:start].rstrip(), self._held[start:]
            self._is_called = True
            yield from self._content(before)

    def _content(self, text: str) -> Iterator[Piece]:
        if not self._has_content:
            text = text.lstrip() if self._has_block or self._tools else text
        if text:
            self._has_content = True
            yield Piece(content=text)


def _reasoning_of(text: str) -> Iterator[Piece]:
    if text:
        yield Piece(reasoning=text)


def _free(text: str, mark: str) -> int:
    """Characters of a text that are neither the beginning of a mark at its end nor white space in front of it."""
    sizes = range(min(len(text), len(mark) - 1), 0, -1)
    part = next((size for size in sizes if mark.startswith(text[-size:])), 0)
    return len(text[: len(text) - part].rstrip())
