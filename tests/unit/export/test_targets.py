"""Every export format is complete, and exports of earlier versions stay what they were."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import gguf
import pytest

from sienn_ray.errors import ExportError
from sienn_ray.export.gguf import ggml, llama_cpp_package
from sienn_ray.export.gguf.quantization_mix import MOST
from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization, Sampling
from sienn_ray.export.targets import TARGETS, Choice, ExportTarget, formats_with, target_of
from tests.support.fakes_exports import CHOSEN

# As the first version has written them into the database, with the id, file and copies of the largest matrix.
EARLIER = [
    (
        '{"format":"ollama","quantization":"Q4_K_M","merged":false,"adapter_only":false,"model_name":"sienn-job-1",'
        '"sampling":{"temperature":0.8,"top_p":0.9,"top_k":40},"system":null}',
        "3eb790319c0b1fbcdd9ceec12f9a0cec",
        "ollama.zip",
        4,
    ),
    (
        '{"format":"huggingface","quantization":null,"merged":false,"adapter_only":false,"model_name":null,'
        '"sampling":{"temperature":0.8,"top_p":0.9,"top_k":40},"system":null}',
        "c83162180f5cbd622531f98a5b697c2f",
        "adapter.zip",
        0,
    ),
    (
        '{"format":"huggingface","quantization":null,"merged":true,"adapter_only":false,"model_name":null,'
        '"sampling":{"temperature":0.8,"top_p":0.9,"top_k":40},"system":null}',
        "414685febdd8b7566eaacce83f5cfddf",
        "merged.zip",
        4,
    ),
    (
        '{"format":"gguf","quantization":"Q8_0","merged":false,"adapter_only":false,"model_name":null,'
        '"sampling":{"temperature":0.8,"top_p":0.9,"top_k":40},"system":null}',
        "cb4ff48be44cce9557e47c0caaa39d50",
        "model-Q8_0.gguf",
        4,
    ),
    (
        '{"format":"gguf","quantization":"F32","merged":false,"adapter_only":true,"model_name":null,'
        '"sampling":{"temperature":0.8,"top_p":0.9,"top_k":40},"system":null}',
        "f6fd2703a0b170fd6d1e91ebda611e64",
        "adapter-F32.gguf",
        0,
    ),
]


def settled(target: ExportTarget, **chosen: Any) -> ExportOptions:
    return target.options(ExportOptions(format=target.format, **chosen), "job-1")


def with_choice(target: ExportTarget, choice: Choice) -> ExportOptions:
    fields: dict[str, Any] = {choice: CHOSEN[choice]}
    return settled(target, **({"sampling": fields} if choice in Sampling.model_fields else fields))


def test_each_format_has_its_own_target() -> None:
    assert [target.format for target in TARGETS] == list(ExportFormat)


def test_each_choice_is_taken_by_a_format() -> None:
    taken = {choice for target in TARGETS for choice in target.choices}
    assert taken == set(get_args(Choice)) == set(CHOSEN)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.format)
def test_listed_parameters_are_choices(target: ExportTarget) -> None:
    assert set(target.parameters) <= set(target.choices)


@pytest.mark.parametrize("choice", CHOSEN)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.format)
def test_options_have_what_the_format_takes_and_nothing_else(target: ExportTarget, choice: Choice) -> None:
    options = with_choice(target, choice)
    assert options.format is target.format
    assert (options != settled(target)) is (choice in target.choices)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.format)
def test_file_name_needs_no_quotes(target: ExportTarget) -> None:
    for choice in target.choices:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", target.file_name(with_choice(target, choice)))


@pytest.mark.parametrize(("text", "export_id", "file_name", "num_copies"), EARLIER)
def test_exports_of_earlier_versions_are_found_again(
    text: str, export_id: str, file_name: str, num_copies: int
) -> None:
    options = ExportOptions.model_validate_json(text)
    written = json.loads(options.model_dump_json())
    assert written == {**written, **json.loads(text)}
    # A new field of the options must be left out of the hash while it is as it was before there was one.
    assert options.export_id("job-1") == export_id
    target = target_of(options.format)
    assert target.options(options, "job-1") == options
    assert (target.file_name(options), target.num_matrix_copies(options)) == (file_name, num_copies)


def test_formats_are_named_in_the_order_of_the_alphabet() -> None:
    assert formats_with("quantization") == "gguf and ollama"
    assert formats_with("merged") == "huggingface"


@pytest.mark.parametrize("quantization", GgufQuantization)
def test_each_quantization_is_known_to_gguf(quantization: GgufQuantization) -> None:
    assert quantization.is_plain is (MOST[quantization] in ggml.PLAIN)
    prefix = "ALL" if quantization is GgufQuantization.F32 else "MOSTLY"
    assert f"{prefix}_{quantization}" in gguf.LlamaFileType.__members__


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.format)
def test_packages_that_are_missing_are_named(target: ExportTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp_package, "MODULE", "no_such_module")
    target.check_packages(settled(target, quantization=GgufQuantization.F16))
    if "quantization" in target.choices:
        with pytest.raises(ExportError, match=re.escape(llama_cpp_package.INSTALL_COMMAND)):
            target.check_packages(settled(target, quantization=GgufQuantization.Q4_K_M))
