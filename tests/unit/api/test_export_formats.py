from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.routes.export_formats import formats
from sienn_ray.export import llama_cpp_package
from sienn_ray.export.options import PLAIN_QUANTIZATIONS, QUANTIZATIONS


def test_every_format_of_the_contract_is_made(client: TestClient) -> None:
    listed = client.get("/api/export-formats").json()["formats"]
    assert [(entry["name"], entry["description"], entry["parameters"], entry["supported"]) for entry in listed] == [
        (
            "ollama",
            "Ollama Modelfile format for local deployment",
            ["model_name", "temperature", "top_p", "top_k"],
            True,
        ),
        ("huggingface", "HuggingFace format (adapter + tokenizer)", [], True),
        ("gguf", "GGUF quantized format for llama.cpp", ["quantization"], True),
    ]


@pytest.mark.parametrize("has_llama_cpp", [True, False])
def test_quantizations_are_those_that_are_made(has_llama_cpp: bool) -> None:
    listed = {entry.name: entry for entry in formats(has_llama_cpp=has_llama_cpp).formats}
    expected = list(QUANTIZATIONS if has_llama_cpp else PLAIN_QUANTIZATIONS)
    for name in ("ollama", "gguf"):
        assert listed[name].quantizations == expected
        says_how = llama_cpp_package.INSTALL_COMMAND in str(listed[name].note)
        assert says_how is not has_llama_cpp
    assert listed["huggingface"].quantizations is None
