"""A slow hub holds up questions about base models, and nothing else."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sienn_ray.api.lists.base_models import ask_hub, check_base_model
from sienn_ray.errors import CapacityError, InvalidBaseModelError, InvalidInputError
from sienn_ray.settings import Settings


def test_slow_questions_hold_up_nothing_else() -> None:
    is_over = threading.Event()
    settings = Settings(env="test", hub_timeout_s=0.01)

    async def main() -> None:
        slow = [ask_hub("owner/slow", settings, is_over.wait) for _ in range(40)]
        answers = await asyncio.gather(*slow, return_exceptions=True)
        assert {type(each) for each in answers} == {CapacityError}
        assert "hasn't said within 0 s if it has 'owner/slow'" in str(answers[0])
        # Its threads still wait, those that all else runs in don't.
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), timeout=10.0) == "done"

    try:
        asyncio.run(main())
    finally:
        is_over.set()


def test_a_model_that_is_not_allowed_is_refused() -> None:
    settings = Settings(env="test", allowed_base_models=("Qwen/*",))
    with pytest.raises(InvalidBaseModelError, match="isn't allowed here"):
        asyncio.run(check_base_model("owner/other", settings))


@pytest.mark.usefixtures("hub_home")
def test_modules_that_a_model_has_not_are_refused() -> None:
    base_model, settings = "HuggingFaceTB/SmolLM2-135M-Instruct", Settings(env="test")
    assert asyncio.run(check_base_model(base_model, settings, target_modules=("q_proj",))) is None
    with pytest.raises(InvalidInputError, match=r"target_modules has q_prj, which .* it has down_proj, gate_proj"):
        asyncio.run(check_base_model(base_model, settings, target_modules=("q_proj", "q_prj")))
