"""Names of modules are checked before a job waits for its turn, where they are known without loading weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sienn_ray.catalog import BaseModelSource, FoundBaseModel, resolve
from sienn_ray.errors import InvalidInputError
from sienn_ray.module_names import check_target_modules, linear_names
from tests.unit.conftest import AddToCache

pytestmark = pytest.mark.usefixtures("hub_home")

MODEL = "owner/model"
PACKAGED = "HuggingFaceTB/SmolLM2-135M-Instruct"
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def weights(**shapes: list[int]) -> bytes:
    """A safetensors file with nothing but its header."""
    header = json.dumps({f"model.layers.0.{name}.weight": {"shape": shape} for name, shape in shapes.items()}).encode()
    return len(header).to_bytes(8, "little") + header


def found_in(add_to_cache: AddToCache, content: bytes) -> FoundBaseModel:
    add_to_cache(MODEL, {"config.json": CONFIG, "model.safetensors": content})
    return resolve(MODEL, 5.0)


def test_names_are_those_of_the_weights(add_to_cache: AddToCache, tiny_model_folder: Path) -> None:
    found = found_in(add_to_cache, (tiny_model_folder / "model.safetensors").read_bytes())
    assert linear_names(MODEL, found) == LINEAR


def test_names_of_a_package_are_known_before_it_is_converted() -> None:
    assert linear_names(PACKAGED, FoundBaseModel(BaseModelSource.PACKAGE, None)) == LINEAR


def test_a_typo_is_told_with_the_names_that_there_are(add_to_cache: AddToCache) -> None:
    found = found_in(add_to_cache, weights(q_proj=[4, 4], v_proj=[4, 4], norm=[4], embed_tokens=[9, 4]))
    check_target_modules(MODEL, found, ["q_proj", "layers.0.v_proj"])
    for name in ("q_prj", "norm", "embed_tokens"):
        with pytest.raises(
            InvalidInputError, match=f"has {name}, which {MODEL} has no .* of; it has q_proj, v_proj; use"
        ):
            check_target_modules(MODEL, found, ["q_proj", name])


@pytest.mark.parametrize(
    "content",
    [b"", b"w", (2**40).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]", weights(**{"experts.0.w1": [4, 4]})],
)
def test_where_they_are_not_known_nothing_is_refused(add_to_cache: AddToCache, content: bytes) -> None:
    check_target_modules(MODEL, found_in(add_to_cache, content), ["anything"])


def test_what_is_on_the_hub_is_not_known() -> None:
    check_target_modules(MODEL, FoundBaseModel(BaseModelSource.HUB, "a" * 40), ["anything"])
