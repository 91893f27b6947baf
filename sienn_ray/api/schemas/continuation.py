"""Fields that have the assistant's last message gone on with, by the names of vLLM, DeepSeek and Mistral."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sienn_ray.api.schemas.common import RequestBody
from sienn_ray.api.schemas.messages import MessageBody
from sienn_ray.errors import RefusedPromptError

_FINAL = "continue_final_message"


class ContinuationFields(RequestBody):
    """The choice of what comes behind a conversation: an answer, or more of its last message."""

    continue_final_message: bool = Field(
        False,
        description="Go on with the last message, which is the assistant's, rather than begin an answer. What comes "
        "back is the new text alone. `prefix: true` in that message asks for the same.",
        examples=[False, True],
    )
    add_generation_prompt: bool | None = Field(
        None,
        description="Whether an answer begins behind the conversation; the opposite of `continue_final_message`, which "
        "clients may send along.",
        examples=[None],
    )

    def continues(self, messages: Sequence[MessageBody]) -> bool:
        """Return whether the answer goes on with the last of some messages.

        Raises:
            RefusedPromptError: What is asked for doesn't go together, or there is nothing to go on with.
        """
        if any(message.prefix for message in messages[:-1]):
            raise RefusedPromptError("prefix: only the last of messages can be gone on with", field=_FINAL)
        last = messages[-1] if messages else None
        has_prefix = last is not None and bool(last.prefix)
        is_asked = self.continue_final_message or has_prefix
        if has_prefix and not self.continue_final_message and _FINAL in self.model_fields_set:
            raise RefusedPromptError(
                f"{_FINAL} is false, and the last message has prefix true; leave one of them out", field=_FINAL
            )
        if not is_asked:
            if self.add_generation_prompt is False:
                raise RefusedPromptError(
                    f"add_generation_prompt is false, so no answer would begin; send {_FINAL} true with it to go on "
                    "with the last message",
                    field="add_generation_prompt",
                )
            return False
        if self.add_generation_prompt:
            raise RefusedPromptError(
                "add_generation_prompt is true, which begins a new answer; with "
                f"{_FINAL} or prefix, it has to be false",
                field="add_generation_prompt",
            )
        if last is None or last.role != "assistant":
            raise RefusedPromptError(f"{_FINAL} needs messages whose last one is the assistant's", field=_FINAL)
        if last.tool_calls:
            raise RefusedPromptError(
                f"{_FINAL} can't go on with a message that calls tools; leave its tool_calls out", field=_FINAL
            )
        if not last.chat_message.content.strip():
            raise RefusedPromptError(
                f"{_FINAL} needs a text to go on with, and the last message has none; leave it out", field=_FINAL
            )
        return True
