"""A chat template as the strings around each turn, which other programs' templates can say as well.

Most chat templates put fixed strings around what was said. Rendering conversations of marks that occur nowhere else
shows which strings those are, whatever the template's code looks like; rendering further conversations in both ways
shows whether that is all the template does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.errors import ExportError

Message = Mapping[str, str]
# Messages, and whether to ask for an answer behind them.
Render = Callable[[Sequence[Message], bool], str]

_MARKS = tuple(f"QxZmark{number}ZxQ" for number in range(6))


@dataclass(frozen=True)
class Turn:
    """The strings before and after one role's content."""

    before: str
    after: str


@dataclass(frozen=True)
class Turns:
    """A chat template that only puts strings around contents.

    Args:
        start: Before the first message, where that isn't the system's.
        system_start: Before the content of a system message, which is the first.
        system_end: What follows that content.
        user: Around a user's.
        assistant: Around an answer.
        generation: Asks for an answer.
    """

    start: str
    system_start: str
    system_end: str
    user: Turn
    assistant: Turn
    generation: str

    @property
    def default_system(self) -> str | None:
        """The system message that the template brings along for conversations without one."""
        text = self.start.removeprefix(self.system_start)
        if len(text) == len(self.start) or not text.endswith(self.system_end) or not self.system_start:
            return None
        return text.removesuffix(self.system_end) or None

    @property
    def ends(self) -> tuple[str, ...]:
        """The marks that end an answer: its end of turn, and the beginning of a user's turn."""
        marks = (self.assistant.after.strip(), self.user.before.strip())
        return tuple(mark for mark in dict.fromkeys(marks) if mark)

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """Return the text that the chat template makes of messages."""
        has_system = bool(messages) and messages[0]["role"] == "system"
        pieces = [self.system_start if has_system else self.start]
        for message in messages:
            content = message["content"]
            if message["role"] == "system":
                pieces += [content, self.system_end]
            else:
                turn = self.user if message["role"] == "user" else self.assistant
                pieces += [turn.before, content, turn.after]
        return "".join([*pieces, self.generation if add_generation_prompt else ""])


def _conversation(*contents: str, system: str | None = None) -> list[Message]:
    roles = ("user", "assistant")
    messages: list[Message] = [
        {"role": roles[number % 2], "content": content} for number, content in enumerate(contents)
    ]
    return [{"role": "system", "content": system}, *messages] if system is not None else messages


# What templates are known to treat apart: the first turn, the last one, a system message, long conversations, and
# contents with marks of their own.
_CONVERSATIONS = (
    _conversation("Hello"),
    _conversation("Hello", system="Be brief."),
    _conversation("Hello", "Hi!", "How are you?"),
    _conversation("Hello", "Hi!", "How are you?", system="Be brief."),
    _conversation("One", "1", "Two", "2", "Three", "3", "Four"),
    _conversation("One", "1", "Two", "2", "Three", "3", "Four", system="You\nare\n\na poet."),
    _conversation("{{ .Content }} {% if x %} <b>&amp;</b>", "`code`\n```", "\u00fc\u4f60\U0001f600"),
    _conversation("a\nb", "c\n\nd", "e"),
)


def turns_of(prompt_format: PromptFormat, tokenizer: Any) -> Turns | None:
    """The strings of the chat template that an adapter was trained with; None for plain text, which has none.

    Raises:
        ExportError: It does more than putting strings around contents.
    """
    match prompt_format.kind:
        case PromptKind.TEXT:
            return None
        case PromptKind.CHAT:
            return find_turns(
                lambda messages, asks: prompt_format.render(tokenizer, messages, add_generation_prompt=asks)
            )
        case _:
            assert_never(prompt_format.kind)


def find_turns(render: Render) -> Turns:
    """The strings of a chat template.

    Args:
        render: The template; it may raise what it likes.

    Raises:
        ExportError: It does more than putting strings around contents.
    """
    try:
        found = _find(render)
        differing = next((each for each in _CONVERSATIONS if not _is_same(found, render, each)), None)
    except Exception as error:
        raise ExportError(f"the chat template can't be taken apart: {type(error).__name__}: {error}") from error
    if differing is not None:
        raise ExportError(
            "the chat template does more than putting strings around messages, which no other template can say for it; "
            f"it differs for {[message['role'] for message in differing]}"
        )
    return found


def _find(render: Render) -> Turns:
    system, first, answer, second, last_answer, third = _MARKS
    turns = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": second},
        {"role": "assistant", "content": last_answer},
        {"role": "user", "content": third},
    ]
    with_system = [{"role": "system", "content": system}, *turns]
    system_start, behind_system, behind_user, behind_answer, *_, end = _pieces(render(with_system, True), _MARKS)
    before_first, *_ = _pieces(render(turns, True), _MARKS[1:])
    # Only their sums are seen within a conversation; where it ends says how they are meant.
    after_user = _common_start([behind_user, end, _end(render, turns[:1])])
    after_answer = _common_start([behind_answer, _end(render, turns[:2])])
    before_user = _common_end([behind_system, behind_answer.removeprefix(after_answer), before_first])
    return Turns(
        start=before_first.removesuffix(before_user),
        system_start=system_start,
        system_end=behind_system.removesuffix(before_user),
        user=Turn(before_user, after_user),
        assistant=Turn(behind_user.removeprefix(after_user), behind_answer.removesuffix(before_user)),
        generation=end.removeprefix(after_user),
    )


def _end(render: Render, messages: Sequence[Message]) -> str:
    """What a conversation ends with that isn't asked to go on."""
    return render(messages, False).rpartition(messages[-1]["content"])[2]


def _pieces(text: str, marks: Sequence[str]) -> list[str]:
    """What lies between marks, each of which is there once and in this order."""
    places = [0]
    for mark in marks:
        if text.count(mark) != 1:
            raise ValueError(f"a content is there {text.count(mark)} times")
        places.append(text.index(mark))
    starts = [0, *(place + len(mark) for place, mark in zip(places[1:], marks, strict=True))]
    ends = [*places[1:], len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _common_start(texts: Sequence[str]) -> str:
    shortest = min(texts, key=len)
    length = next((index for index in range(len(shortest)) if len({text[index] for text in texts}) > 1), len(shortest))
    return shortest[:length]


def _common_end(texts: Sequence[str]) -> str:
    return _common_start([text[::-1] for text in texts])[::-1]


def _is_same(turns: Turns, render: Render, messages: Sequence[Message]) -> bool:
    return turns.render(messages, True) == render(messages, True)
