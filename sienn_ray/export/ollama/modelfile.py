"""A Modelfile for Ollama: the model, its template in Go's language, its parameters, its system message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sienn_ray import catalog
from sienn_ray.datasets.chat_turns import Turns
from sienn_ray.errors import ExportError
from sienn_ray.export.options import Sampling

MODELFILE = "Modelfile"
# Ollama's own choice is far below what models were made for; more costs memory for keys and values.
_MAX_NUM_CTX = 8192
_QUOTES = '"""'


@dataclass(frozen=True)
class OllamaModel:
    """All that a Modelfile says.

    Args:
        gguf_file: Name of the GGUF file beside it.
        turns: The chat template; None for a model of plain text.
        eos_token: What an answer ends with.
        context_length: Tokens that the model sees at once.
        sampling: See `Sampling`.
        system: System message for conversations that have none; None leaves it to the template.
        license_text: What the model may be used for.
    """

    gguf_file: str
    turns: Turns | None
    eos_token: str | None
    context_length: int
    sampling: Sampling
    system: str | None
    license_text: str

    def modelfile(self) -> str:
        """The Modelfile.

        Raises:
            ExportError: A text can't be written in one.
        """
        system = self.system if self.system is not None or self.turns is None else self.turns.default_system
        lines = [
            f"FROM ./{self.gguf_file}",
            f"TEMPLATE {_quoted('TEMPLATE', go_template(self.turns) if self.turns else '{{ .Prompt }}')}",
            *([f"SYSTEM {_quoted('SYSTEM', system)}"] if system else []),
            f"PARAMETER temperature {self.sampling.temperature:g}",
            f"PARAMETER top_p {self.sampling.top_p:g}",
            f"PARAMETER top_k {self.sampling.top_k}",
            f"PARAMETER num_ctx {min(self.context_length, _MAX_NUM_CTX)}",
            *(f"PARAMETER stop {_quoted('stop', text)}" for text in self._stops()),
            f"LICENSE {_quoted('LICENSE', self.license_text)}",
        ]
        return "\n".join(lines) + "\n"

    def _stops(self) -> list[str]:
        """What ends an answer: its end, or the beginning of another turn."""
        found = [self.eos_token or "", *(self.turns.ends if self.turns is not None else ())]
        return [text for text in dict.fromkeys(found) if text]


def go_template(turns: Turns) -> str:
    """The chat template as Go's `text/template`, over the `.Messages` that Ollama gives it.

    A last message of the assistant is left open, so that the model goes on with it.
    """
    start = _literal(turns.start)
    opening = (
        f'{{{{ if .Messages }}}}{{{{ if ne (index .Messages 0).Role "system" }}}}{start}{{{{ end }}}}{{{{ end }}}}'
        if start
        else ""
    )
    branches: Iterable[tuple[str, str]] = (
        ("system", f"{_literal(turns.system_start)}{{{{ .Content }}}}{_literal(turns.system_end)}"),
        ("user", f"{_literal(turns.user.before)}{{{{ .Content }}}}{_literal(turns.user.after)}"),
        (
            "assistant",
            f"{_literal(turns.assistant.before)}{{{{ .Content }}}}"
            f"{{{{ if not $last }}}}{_literal(turns.assistant.after)}{{{{ end }}}}",
        ),
    )
    said = "{{ else ".join(f'if eq .Role "{role}" }}}}{text}' for role, text in branches)
    generation = f'{{{{ if and $last (ne .Role "assistant") }}}}{_literal(turns.generation)}{{{{ end }}}}'
    return (
        f"{opening}{{{{ range $i, $_ := .Messages }}}}{{{{ $last := eq (len (slice $.Messages $i)) 1 }}}}"
        f"{{{{ {said}{{{{ end }}}}{generation}{{{{ end }}}}"
    )


def install_script(model_name: str, files: Sequence[str]) -> str:
    """A script that registers the model, wherever the archive was unpacked.

    Args:
        model_name: What Ollama calls it.
        files: The files beside it that have to be there.
    """
    missing = 'echo "$file is missing; unpack the whole archive" >&2; exit 1'
    checks = f'for file in {" ".join(files)}; do test -f "$file" || {{ {missing}; }}; done'
    return (
        "#!/bin/sh\n"
        f"# Registers this model in Ollama as {model_name}.\n"
        "set -eu\n"
        'cd "$(dirname "$0")"\n'
        f"{checks}\n"
        'command -v ollama >/dev/null || { echo "ollama is not installed" >&2; exit 1; }\n'
        f"ollama create {model_name} -f {MODELFILE}\n"
        f'echo "try it: ollama run {model_name}"\n'
    )


def license_text(base_model: str) -> str:
    """Return the licence of a fine-tuned model, in words: that of its base model applies."""
    entry = next((entry for entry in catalog.CATALOG if entry.id == base_model), None)
    known = f" ({entry.license})" if entry else ""
    return (
        f"Fine-tuned from {base_model}, whose licence{known} applies to this model too; its text is at "
        f"https://huggingface.co/{base_model}."
    )


def _literal(text: str) -> str:
    """Text that Go's template language leaves as it is."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(field: str, text: str) -> str:
    """Text in a Modelfile's quotes, which has no way to write these quotes themselves, or what can't be printed."""
    if _QUOTES in text:
        raise ExportError(f"{field} has three quotes in a row, which a Modelfile can't say; leave one out")
    hidden = next((character for character in text if not character.isprintable() and character not in "\n\r\t"), None)
    if hidden is not None:
        raise ExportError(f"{field} has the character {hidden!r}, which Ollama drops from a Modelfile; leave it out")
    return f"{_QUOTES}{text}{_QUOTES}"
