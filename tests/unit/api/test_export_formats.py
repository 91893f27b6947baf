from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.routes.export_formats import formats
from sienn_ray.api.schemas.exports import ExportModelRequest
from sienn_ray.export.gguf import llama_cpp_package
from sienn_ray.export.options import PLAIN_QUANTIZATIONS, ExportFormat, GgufQuantization
from sienn_ray.export.targets import TARGETS, Choice, ExportTarget
from tests.support.fakes_exports import CHOSEN

ROOT = Path(__file__).parents[3]


def test_every_format_of_the_contract_is_made(client: TestClient) -> None:
    listed = client.get("/api/export-formats").json()["formats"]
    known = [(entry["name"], entry["description"], entry["parameters"], entry["supported"]) for entry in listed]
    # Further formats come behind these.
    assert known[:3] == [
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
    expected = list(GgufQuantization if has_llama_cpp else PLAIN_QUANTIZATIONS)
    for name in ("ollama", "gguf"):
        assert listed[name].quantizations == expected
        says_how = llama_cpp_package.INSTALL_COMMAND in str(listed[name].note)
        assert says_how is not has_llama_cpp
    assert listed["huggingface"].quantizations is None


def test_lists_are_those_of_the_first_version(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, k_quants = '"F32","F16","BF16","Q8_0"', '"Q6_K","Q5_K_M","Q5_K_S","Q4_K_M","Q4_K_S","Q3_K_M","Q2_K"'
    missing = "K-quants need llama.cpp's code; add it with `pip install 'sienn-ray[gguf]'`"
    lora = "adapter_only: true gives the adapter alone, as a GGUF LoRA"
    text = (
        '{{"formats":[{{"name":"ollama","description":"Ollama Modelfile format for local deployment","supported":true,'
        '"parameters":["model_name","temperature","top_p","top_k"],"quantizations":[{0}],"note":"{1}"}},'
        '{{"name":"huggingface","description":"HuggingFace format (adapter + tokenizer)","supported":true,'
        '"parameters":[],"note":"merged: true gives the whole model in safetensors"}},'
        '{{"name":"gguf","description":"GGUF quantized format for llama.cpp","supported":true,'
        '"parameters":["quantization"],"quantizations":[{0}],"note":"{2}"}}'
    )
    with_code = text.format(f"{plain},{k_quants}", "Takes quantization and system as well", lora)
    assert client.get("/api/export-formats").text.startswith(with_code)
    monkeypatch.setattr(llama_cpp_package, "MODULE", "no_such_module")
    assert client.get("/api/export-formats").text.startswith(text.format(plain, missing, f"{missing}. {lora}"))


def test_each_field_of_a_request_is_a_choice() -> None:
    assert set(get_args(Choice)) == set(ExportModelRequest.model_fields) - {"format"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.format)
def test_each_choice_reaches_the_options(target: ExportTarget) -> None:
    plain = ExportModelRequest(format=target.format).options("job-1")
    for choice in target.choices:
        chosen = ExportModelRequest.model_validate({"format": target.format, choice: CHOSEN[choice]})
        assert chosen.options("job-1") != plain, choice


@pytest.mark.parametrize("choice", CHOSEN)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.format)
def test_a_choice_that_the_format_has_not_is_refused(client: TestClient, target: ExportTarget, choice: Choice) -> None:
    response = client.post("/api/export-model/job-1", json={"format": target.format, choice: CHOSEN[choice]})
    is_refused = response.status_code == 400 and response.json()["detail"].startswith(f"{choice} is of the format")
    assert is_refused is (choice not in target.choices)
    if is_refused:
        assert all(other.format in response.json()["detail"] for other in TARGETS if choice in other.choices)


def cells(page: str, column: str) -> list[list[str]]:
    """Rows of the table that has a column."""
    lines = (ROOT / page).read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|") and f" {column} |" in line)
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_readme_has_every_format() -> None:
    assert {row[0].strip("`") for row in cells("README.md", "What you get")} == set(ExportFormat)


def test_documentation_says_which_format_takes_a_field() -> None:
    documented: dict[str, set[str]] = {}
    for name, _, formats_of_it, meaning in cells("docs/api.md", "For"):
        if name == "`format`":
            assert set(re.findall("`(.*?)`", meaning)) == set(ExportFormat)
            continue
        documented |= {field: set(formats_of_it.split(", ")) for field in re.findall("`(.*?)`", name)}
    taken = {choice: {target.format for target in TARGETS if choice in target.choices} for choice in get_args(Choice)}
    assert documented == taken
