"""Values of a row by the parts that they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sienn_ray.datasets.shapes.embedded_json import embedded_messages, embedded_texts
from sienn_ray.datasets.shapes.findings import Finding, Findings
from sienn_ray.datasets.shapes.layout import Column, Layout
from sienn_ray.datasets.shapes.names import Part
from sienn_ray.datasets.values import filled, is_visible, string
from sienn_ray.datasets.wording import shown
from sienn_ray.errors import InvalidDatasetError

# Strings that programs write where a value is missing: pandas, numpy, SQL, JavaScript, Excel.
_PLACEHOLDERS = frozenset({"nan", "none", "null", "<na>", "n/a", "#n/a", "nat", "undefined"})
_MAX_PLACEHOLDER_CHARS = 9

# Completions that may be lists of answers, any of which is right.
_LISTS = frozenset({"answers", "targets", "answer", "target"})
_PLURALS = frozenset({"answers", "targets"})
_ADVICE = {
    "text label": 'to learn it as the answer, say columns={"text": "prompt", "label": "completion"}',
    "label": "where rows are labelled, the first one has to be",
    "weight": "give single messages a weight of 0 or 1",
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), "only text is learned"),
}


class Fields:
    """One row's values.

    Args:
        values: The row.
        layout: Where its parts are.
        findings: Takes what its user should know.
        are_strings: Whether all values of the file are strings, as in CSV, where lists are written as JSON.
    """

    __slots__ = ("_are_strings", "_values", "findings", "layout")

    def __init__(
        self, values: Mapping[str, Any], layout: Layout, findings: Findings, *, are_strings: bool = False
    ) -> None:
        self._values = values
        self._are_strings = are_strings
        self.layout = layout
        self.findings = findings

    def check_refused(self, shape: str) -> None:
        """Refuse columns that are filled and would change what is learned, but can't be read.

        Raises:
            InvalidDatasetError: There is one; `shape` names those that are read.
        """
        for column in self.layout.refused:
            if not is_empty(self._values[column.key]):
                name = column.name
                advice = _ADVICE.get(f"{shape} {name}") or _ADVICE.get(name)
                raise InvalidDatasetError(
                    f"column '{name}' would change what is learned, and can't be read beside {shape}"
                    + (f"; {advice}" if advice else "")
                    + f'; remove it, or have it left out by columns={{"{name}": "ignore"}}'
                )

    def value(self, part: Part) -> tuple[Any, str]:
        """Return the value of a part that every row has, and its column's name in errors."""
        column = self.layout.parts[part]
        return self._values[column.key], column.name

    def text_or_messages(self, part: Part, *, must_be_messages: bool = False) -> tuple[Any, str]:
        """Return the value of a part that may be messages, and its column's name in errors.

        Args:
            part: The part.
            must_be_messages: Whether messages are read from any string that holds them, since a text won't do.

        Raises:
            InvalidDatasetError: A string begins like a list of messages, and is cut.
        """
        value, name = self.value(part)
        if isinstance(value, str) and (self._are_strings or must_be_messages):
            messages = embedded_messages(value, f"column '{name}'")
            if messages is not None:
                self.findings.add(Finding.EMBEDDED_MESSAGES, f"column '{name}'")
                return messages, name
        return value, name

    def text(self, part: Part) -> str:
        """Return the text of a part that every row has.

        Raises:
            InvalidDatasetError: It is no string, or blank.
        """
        column = self.layout.parts[part]
        what = f"column '{column.name}'"
        text = string(self._values[column.key], what)
        if part is Part.PROMPT and not is_visible(text):
            raise InvalidDatasetError(
                f"{what} must not be blank; fill it in or remove the row; completions without prompts belong into a "
                "column 'text'"
            )
        return filled(text, what)

    def beside(self, part: Part) -> Iterator[tuple[Any, Column]]:
        """Yield the values of a part that rows may have, if they are filled, and their columns."""
        for column in self.layout.beside.get(part, ()):
            value = self._values[column.key]
            if not is_empty(value):
                yield value, column

    def only(self, part: Part) -> tuple[Any, str] | None:
        """Return the value of a part that rows may have once, and its column's name; None where nothing is filled.

        Raises:
            InvalidDatasetError: Two columns have different ones.
        """
        found = list(self.beside(part))
        if not found:
            return None
        value, column = found[0]
        for other, other_column in found[1:]:
            if other != value:
                raise InvalidDatasetError(
                    f"columns '{column.name}' and '{other_column.name}' differ, and both are the row's {part}; have "
                    f'one left out by columns={{"{other_column.name}": "ignore"}}'
                )
        return value, column.name

    def only_text(self, part: Part) -> str | None:
        """Return the text of a part that rows may have once; None where it isn't filled.

        Raises:
            InvalidDatasetError: It is no string, or two columns have different ones.
        """
        found = self.only(part)
        return None if found is None else self._text_beside(*found)

    def _text_beside(self, value: object, name: str) -> str:
        """Check a text that stands beside the main ones, of the column `name`."""
        text = string(value, f"column '{name}'")
        if is_placeholder(text):
            self.findings.add(Finding.PLACEHOLDER_BESIDE, f"column '{name}' is {shown(text)}")
        return text

    def only_object(self, part: Part) -> Any:
        """Return the list or the object that rows may have once as a part; None where it isn't filled.

        Raises:
            InvalidDatasetError: It is what a program writes for a missing value, or two columns have different ones.
        """
        found = self.only(part)
        if found is None:
            return None
        value, name = found
        if isinstance(value, str) and is_placeholder(value):
            raise InvalidDatasetError(
                f"column '{name}' is {shown(value)}, as programs write a missing value; leave it empty where nothing "
                f'is meant, or have the column left out by columns={{"{name}": "ignore"}}'
            )
        return value

    def label(self) -> tuple[Any, str]:
        """Return the label of a row that has to have one, and its column's name.

        Raises:
            InvalidDatasetError: Two columns have different ones.
        """
        column = self.layout.beside[Part.LABEL][0]
        return self.only(Part.LABEL) or (self._values[column.key], column.name)

    def input_texts(self) -> Iterator[str]:
        """Yield what stands behind the prompt, each by itself.

        Raises:
            InvalidDatasetError: One is neither a string nor a list of strings.
        """
        for value, column in self.beside(Part.INPUT):
            what = f"column '{column.name}'"
            if column.name != "input":
                value = embedded_texts(value, what)
            if isinstance(value, list):
                yield from (string(item, f"{what}[{index}]") for index, item in enumerate(value))
            else:
                yield self._text_beside(value, column.name)

    def answer(self) -> str:
        """Return the text of the completion; of SQuAD's and other lists of possible answers the first one.

        Raises:
            InvalidDatasetError: There is none.
        """
        column = self.layout.parts[Part.COMPLETION]
        value, name, what = self._values[column.key], column.name, f"column '{column.name}'"
        if column.known not in _LISTS:
            return self.checked_answer(value, what)
        if column.known in _PLURALS:
            value = embedded_texts(value, what, may_be_squad=True)
        if isinstance(value, dict) and isinstance(value.get("text"), list | str):
            value, what = value["text"], f"column '{name}.text'"
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            if len(set(value)) > 1:
                self.findings.add(Finding.SEVERAL_ANSWERS)
            value = value[0]
        if value == []:
            raise InvalidDatasetError(f"{what} has no answer; add one or remove the row")
        return self.checked_answer(value, what)

    def checked_answer(self, value: object, what: str) -> str:
        """Check an answer; `what` names it in errors.

        Raises:
            InvalidDatasetError: It is no string, or blank.
        """
        text = filled(string(value, what), what)
        if is_placeholder(text):
            self.findings.add(Finding.PLACEHOLDER, shown(text))
        return text


def is_placeholder(text: str) -> bool:
    """Return whether a text is what a program writes where a value is missing."""
    return len(text) <= _MAX_PLACEHOLDER_CHARS and text.strip().lower() in _PLACEHOLDERS


def is_empty(value: object) -> bool:
    """Return whether a value says nothing: null, a blank string, an empty list or object."""
    if isinstance(value, str):
        return not is_visible(value)
    return value is None or value == [] or value == {}
