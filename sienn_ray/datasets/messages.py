"""Messages of a user's row, checked: objects in the form of OpenAI's fine-tuning and chat APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from sienn_ray.datasets.contents import said_in
from sienn_ray.datasets.schema import Message, Role
from sienn_ray.datasets.tool_calls import calls_of
from sienn_ray.datasets.values import filled, is_visible, string
from sienn_ray.datasets.wording import kind_of, listed, shown
from sienn_ray.errors import InvalidDatasetError

# One thing under the names that models and their providers have for it.
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
# All that is read of a message. Rows in other forms are brought to these.
MESSAGE_KEYS = frozenset(
    {"role", "content", *REASONING_KEYS, "tool_calls", "function_call", "tool_call_id", "name", "weight", "prefix"}
)
_ROLES = {
    **dict.fromkeys((*REASONING_KEYS, "tool_calls", "function_call", "prefix"), Role.ASSISTANT),
    "tool_call_id": Role.TOOL,
}
_ROLE_NAMES: dict[str, Role] = {**{str(role): role for role in Role}, "function": Role.TOOL}  # OpenAI's older name


def message_list(items: Sequence[object], what: str) -> tuple[Message, ...]:
    """Check each message by itself; `what` names the list in errors.

    Raises:
        InvalidDatasetError: One of them isn't a message.
    """
    return tuple(checked_message(item, f"{what}[{index}]") for index, item in enumerate(items))


def checked_message(item: object, what: str) -> Message:
    """Check a message; `what` names it in errors.

    Raises:
        InvalidDatasetError: It isn't one.
    """
    if not isinstance(item, dict):
        raise InvalidDatasetError(f"{what} must be an object with role and content, got {kind_of(item)}")
    if "role" not in item:
        raise InvalidDatasetError(f"{what} has no 'role'; it has {listed(item)}")
    role = _role(item["role"], f"{what}.role")
    if len(item) == 2 and isinstance(content := item.get("content"), str):  # nothing else
        return Message(role, _filled(role, string(content, f"{what}.content"), f"{what}.content"))
    for key, owner in _ROLES.items():
        if role is not owner and item.get(key):
            raise InvalidDatasetError(
                f"{what}.{key} is on a message of the {role}, but only the {owner}'s can have it; remove it or correct "
                "the role"
            )
    match role:
        case Role.ASSISTANT:
            return _answer(item, what)
        case Role.SYSTEM | Role.DEVELOPER | Role.USER | Role.TOOL:
            return _other(item, what, role)
        case _:
            assert_never(role)


def _answer(item: Mapping[str, Any], what: str) -> Message:
    calls = calls_of(item, what)
    said = said_in(item.get("content"), f"{what}.content", Role.ASSISTANT) if _has_content(item, what, calls) else None
    content = "" if said is None else said.text
    if not calls:
        filled(content, f"{what}.content")
    return Message(
        Role.ASSISTANT,
        content,
        reasoning_content=_reasoning(item, None if said is None else said.reasoning, what),
        tool_calls=calls,
        name=_name(item, what),
        weight=_weight(item, what, Role.ASSISTANT),
        is_prefix=_flag(item, "prefix", what),
    )


def _has_content(item: Mapping[str, Any], what: str, calls: object) -> bool:
    if calls:
        return item.get("content") is not None
    if "content" not in item:
        raise InvalidDatasetError(f"{what} has no 'content'; it has {listed(item)}")
    return True


def _other(item: Mapping[str, Any], what: str, role: Role) -> Message:
    _has_content(item, what, ())
    call_id = item.get("tool_call_id")
    return Message(
        role,
        _filled(role, said_in(item["content"], f"{what}.content", role).text, f"{what}.content"),
        tool_call_id=None if call_id is None else string(call_id, f"{what}.tool_call_id"),
        name=_name(item, what),
        weight=_weight(item, what, role),
    )


def _filled(role: Role, content: str, what: str) -> str:
    # An empty system message has a meaning: it keeps a chat template from adding its own. A tool may have no answer.
    return filled(content, what) if role in {Role.USER, Role.ASSISTANT} else content


def _reasoning(item: Mapping[str, Any], part: str | None, what: str) -> str | None:
    given = {key: string(item[key], f"{what}.{key}") for key in REASONING_KEYS if item.get(key)}
    if part:
        given["content"] = part
    if len(set(given.values())) > 1:
        raise InvalidDatasetError(f"{what} has different reasoning in {' and '.join(given)}; keep one of them")
    return next((text for text in given.values() if not text.isspace()), None)


def _name(item: Mapping[str, Any], what: str) -> str | None:
    name = item.get("name")
    text = "" if name is None else string(name, f"{what}.name")
    return text if is_visible(text) else None


def _weight(item: Mapping[str, Any], what: str, role: Role) -> int:
    weight = item.get("weight")
    if weight is None:
        return 1
    if not isinstance(weight, int | float) or weight not in {0, 1}:
        found = weight if isinstance(weight, int | float) else kind_of(weight)
        raise InvalidDatasetError(f"{what}.weight must be 0 (read, but not learned) or 1, got {found}")
    if weight and role is not Role.ASSISTANT:
        raise InvalidDatasetError(
            f"{what}.weight is 1 on a message of the {role}, but only the assistant's messages are learned; remove it"
        )
    return int(weight) if role is Role.ASSISTANT else 1


def _flag(item: Mapping[str, Any], key: str, what: str) -> bool:
    value = item.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidDatasetError(f"{what}.{key} must be true or false, got {kind_of(value)}")


def _role(value: object, what: str) -> Role:
    text = string(value, what)
    role = _ROLE_NAMES.get(text)
    if role is None:
        raise InvalidDatasetError(f"{what} must be one of {', '.join(Role)}, got {shown(text)}")
    return role
