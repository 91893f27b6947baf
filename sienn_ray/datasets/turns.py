"""Order of the turns of a conversation: whatever a chat template may render, and that there is an answer to learn."""

from __future__ import annotations

from collections.abc import Sequence

from sienn_ray.datasets.schema import Message, Role
from sienn_ray.datasets.wording import listed, shown
from sienn_ray.errors import InvalidDatasetError


def check_turns(messages: Sequence[Message], what: str) -> None:
    """Check each turn against those before it; `what` names the list in errors.

    Who may speak when is up to the chat template: an assistant may begin, and users may write twice.

    Raises:
        InvalidDatasetError: A tool answers a call that wasn't made, or the beginning of an answer has no rest.
    """
    called: dict[str, bool] = {}
    for index, message in enumerate(messages):
        if message.role is Role.TOOL:
            _check_result(messages, index, called, what)
        else:
            called = {call.id: True for call in message.tool_calls if call.id is not None}
        if message.is_prefix:
            _check_prefix(messages, index, what)


def check_answered(messages: Sequence[Message], what: str) -> None:
    """Check that a conversation ends with an answer, and that an answer is learned.

    Raises:
        InvalidDatasetError: It doesn't, or all weights are 0.
    """
    if messages[-1].role is not Role.ASSISTANT:
        raise InvalidDatasetError(
            f"the last message must be the assistant's, got {messages[-1].role}; remove what follows the last answer, "
            "or add one"
        )
    if not any(message.weight for message in messages if message.role is Role.ASSISTANT):
        raise InvalidDatasetError(
            f"every assistant message of {what} has weight 0, so there is nothing to learn; give one weight 1 or "
            "remove the row"
        )


def _check_result(messages: Sequence[Message], index: int, called: dict[str, bool], what: str) -> None:
    message = messages[index]
    before = messages[index - 1].role if index else None
    if before not in {Role.ASSISTANT, Role.TOOL}:
        raise InvalidDatasetError(
            f"{what}[{index}] is a tool's, which may only follow the assistant's call or another tool's, but "
            f"{'nothing' if before is None else f'a message of the {before}'} comes before it"
        )
    if message.tool_call_id is not None and called and message.tool_call_id not in called:
        raise InvalidDatasetError(
            f"{what}[{index}].tool_call_id is {shown(message.tool_call_id)}, but the calls before it have the ids "
            f"{listed(called)}"
        )


def _check_prefix(messages: Sequence[Message], index: int, what: str) -> None:
    message, following = messages[index], messages[index + 1 : index + 2]
    if message.tool_calls:
        raise InvalidDatasetError(f"{what}[{index}] has prefix and tool_calls, but what calls tools is complete")
    if not following or following[0].role is not Role.ASSISTANT:
        raise InvalidDatasetError(
            f"{what}[{index}].prefix is true, so the assistant's next message must be its rest, which is learned; "
            + ("nothing" if not following else f"a message of the {following[0].role}")
            + " follows; add the rest, or remove prefix to learn the whole"
        )
    if following[0].reasoning_content is not None:
        raise InvalidDatasetError(
            f"{what}[{index + 1}] has reasoning in the middle of an answer; move it to the prefix"
        )
