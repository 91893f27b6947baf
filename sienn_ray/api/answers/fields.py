"""Fields of an answer that all routes of this API share."""

from __future__ import annotations

from typing import Any

from sienn_ray.api.answers.asked_models import AskedModel
from sienn_ray.api.answers.openai_output import finish_reason
from sienn_ray.inference.engine import GenerationResult
from sienn_ray.jobs.schema import utc_now
from sienn_ray.storage import Storage


def answer_fields(asked: AskedModel, prompt: str, result: GenerationResult, storage: Storage) -> dict[str, Any]:
    """The fields of an answer but for the job's id.

    Args:
        asked: Who has answered.
        prompt: The prompt as it was sent.
        result: The answer.
        storage: Where adapters are.
    """
    return {
        "prompt": prompt,
        "generated_text": result.text,
        "model_path": asked.path(storage),
        "generation_time": round(result.generation_time_s, 3),
        "timestamp": utc_now(),
        "rendered_prompt": result.rendered_prompt,
        "prompt_tokens": result.num_prompt_tokens,
        "completion_tokens": result.num_generated_tokens,
        "finish_reason": finish_reason(result),
        "adapter_cached": result.adapter_cached,
    }
