from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sienn_ray.datasets.chat_turns import Turn, Turns
from sienn_ray.errors import ExportError
from sienn_ray.export.ollama.modelfile import OllamaModel, go_template, install_script
from sienn_ray.export.options import Sampling
from tests.support.modelfile import parse

CHATML = Turns(
    start="<|im_start|>system\nYou are helpful.<|im_end|>\n",
    system_start="<|im_start|>system\n",
    system_end="<|im_end|>\n",
    user=Turn("<|im_start|>user\n", "<|im_end|>\n"),
    assistant=Turn("<|im_start|>assistant\n", "<|im_end|>\n"),
    generation="<|im_start|>assistant\n",
)


def model(turns: Turns | None = CHATML, system: str | None = None, **fields: str) -> OllamaModel:
    return OllamaModel(
        gguf_file="model.gguf",
        turns=turns,
        eos_token="<|im_end|>",
        context_length=32_768,
        sampling=Sampling(temperature=0.25, top_p=0.5, top_k=7),
        system=system,
        license_text=fields.get("license_text", "Apache-2.0"),
    )


def test_modelfile_has_all_that_ollama_takes() -> None:
    assert parse(model().modelfile()) == [
        ("model", "./model.gguf"),
        ("template", go_template(CHATML)),
        ("system", "You are helpful."),
        ("temperature", "0.25"),
        ("top_p", "0.5"),
        ("top_k", "7"),
        ("num_ctx", "8192"),
        ("stop", "<|im_end|>"),
        ("stop", "<|im_start|>user"),
        ("license", "Apache-2.0"),
    ]


@pytest.mark.parametrize("system", ['Say "hi"', "Two\n\nlines  and  spaces", 'ends with "', "# no comment", "Grüße 🚀"])
def test_system_message_arrives_as_it_is(system: str) -> None:
    assert ("system", system) in parse(model(system=system).modelfile())


def test_empty_system_message_is_none() -> None:
    assert "system" not in dict(parse(model(system="").modelfile()))


def test_model_of_plain_text_gets_the_prompt_as_it_is() -> None:
    commands = parse(model(turns=None).modelfile())
    assert ("template", "{{ .Prompt }}") in commands
    assert [value for name, value in commands if name == "stop"] == ["<|im_end|>"]


@pytest.mark.parametrize("system", ['three """ quotes', "a\u200bb", "bell \a"])
def test_what_a_modelfile_cannot_say_is_refused(system: str) -> None:
    with pytest.raises(ExportError, match="SYSTEM has"):
        model(system=system).modelfile()


def test_install_script_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "install.sh").write_text(install_script("ferry", ["Modelfile", "model.gguf"]))
    run = ["sh", str(tmp_path / "install.sh")]
    missing = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr) == (1, "Modelfile is missing; unpack the whole archive\n")
    for name in ("Modelfile", "model.gguf"):
        (tmp_path / name).touch()
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ollama").write_text('#!/bin/sh\necho "$@ in $(pwd)"\n')
    (tools / "ollama").chmod(0o755)
    path = {"PATH": f"{tools}:/usr/bin:/bin"}
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd="/", env=path)
    assert done.stdout == f"create ferry -f Modelfile in {tmp_path}\ntry it: ollama run ferry\n"
