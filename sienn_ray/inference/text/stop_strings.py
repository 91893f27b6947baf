"""Stop strings in text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first stop string, whatever pieces it comes in.

    First is the one that is complete first, as if the text came by single characters; of several that end together it
    is the longest.

    Args:
        stop: Empty ones are left out, since they would stand everywhere.

    Example:
        >>> stops = StopStrings(["END"])
        >>> stops.push("the E"), stops.push("ND of it"), stops.matched
        ('the ', '', 'END')
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """Add text.

        Returns:
            The text that can be no part of a stop string any more: all in front of the stop string if one is complete,
            and "" after that.
        """
        if self.matched is not None or not text:
            return ""
        self._held += text
        ends = [(start + len(stop), start, stop) for stop in self._stop if (start := self._held.find(stop)) >= 0]
        if ends:
            _, start, self.matched = min(ends)
            free, self._held = self._held[:start], ""
        else:
            split = min((_start_of_part(self._held, stop) for stop in self._stop), default=len(self._held))
            free, self._held = self._held[:split], self._held[split:]
        return free

    def flush(self) -> str:
        """End the text; return what was held back."""
        free, self._held = self._held, ""
        return free


def _start_of_part(text: str, stop: str) -> int:
    """Return the start of the longest prefix of `stop` that `text` ends with; the text's length if there is none."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0 and not stop.startswith(text[start:]):
        start = text.find(stop[0], start + 1)
    return start if start >= 0 else len(text)
