"""Where the adapters go that vLLM can't serve."""

from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.errors import InvalidInputError
from sienn_ray.inference.adapter_kinds import kind_for_adapter
from sienn_ray.settings import EngineKind, Settings
from sienn_ray.training.config import LoraSettings

PLAIN = LoraSettings(r=64).serving_fields
DORA = LoraSettings(use_dora=True).serving_fields
LARGE = LoraSettings(r=65).serving_fields


@pytest.mark.parametrize("engine", list(EngineKind))
@pytest.mark.parametrize("adapter_config", [{}, PLAIN])
def test_any_engine_serves_a_plain_adapter(engine: EngineKind, adapter_config: dict[str, Any]) -> None:
    assert kind_for_adapter(adapter_config, Settings(engine=engine)) is None


@pytest.mark.parametrize("adapter_config", [DORA, LARGE])
def test_what_vllm_cant_serve_goes_to_ours(adapter_config: dict[str, Any]) -> None:
    assert kind_for_adapter(adapter_config, Settings()) is EngineKind.BUILTIN
    assert kind_for_adapter(adapter_config, Settings(engine="builtin")) is None


@pytest.mark.parametrize(
    ("adapter_config", "words"),
    [
        (DORA, "the adapter uses DoRA"),
        (LARGE, "the adapter has rank 65, and SIENN_ENGINE_MAX_LORA_RANK is 64; vLLM can't serve that; raise it"),
    ],
)
def test_where_vllm_is_all_there_is_the_error_has_the_way_out(adapter_config: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        kind_for_adapter(adapter_config, Settings(engine="vllm"))
    assert "SIENN_ENGINE=auto" in caught.value.message


def test_the_bound_is_a_setting() -> None:
    assert kind_for_adapter(LARGE, Settings(engine="vllm", engine_max_lora_rank=128)) is None
