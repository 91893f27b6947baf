"""Commands about base models and adapters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sienn_ray.cli.client import JobId, answer, call, end, events, of
from sienn_ray.cli.output import print_line, print_table
from sienn_ray.cli.sampling import (
    FrequencyPenalty,
    Greedy,
    MaxNewTokens,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Stop,
    System,
    Temperature,
    TemplateVariables,
    TopK,
    TopP,
    given,
    variables_of,
)
from sienn_ray.cli.targets import Overwrite, check_room, check_target, written


def list_models() -> None:
    """List the base models of the catalog."""
    print_table(call("GET", "/api/models/available")["models"], ("id", "name", "vram_required_gb", "is_cached"))


def ask(
    job_id: JobId,
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    system: System = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model without the adapter.")] = False,
    max_new_tokens: MaxNewTokens = 200,
    greedy: Greedy = False,
    seed: Seed = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    stop: Stop = None,
    chat_template_kwargs: TemplateVariables = None,
) -> None:
    """Ask a fine-tuned model; prints its answer as it comes."""
    body = {"job_id": job_id, "prompt": prompt, "max_new_tokens": max_new_tokens, "use_adapter": not base}
    body |= given(
        greedy=greedy,
        system=system,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        stop=stop,
        chat_template_kwargs=variables_of(chat_template_kwargs),
    )
    for name, data in events("/api/test-model", {**body, "stream": True}):
        sys.stdout.write("\n" if name else data["text"])
        sys.stdout.flush()
        if name == "error":
            end(data["detail"])


def compare(
    words: Annotated[
        list[str],
        typer.Argument(metavar="JOB_IDS... PROMPT", help="Ids of up to four jobs of one base model; what to ask."),
    ],
    system: System = None,
    max_new_tokens: MaxNewTokens = 200,
    greedy: Greedy = False,
    seed: Seed = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    stop: Stop = None,
    chat_template_kwargs: TemplateVariables = None,
) -> None:
    """Ask adapters and their base model the same."""
    # Parsed as one list: of a single word, the parser would say that the ids are missing rather than the prompt.
    *job_ids, prompt = words
    if not job_ids:
        raise typer.BadParameter("the prompt is missing; give it behind the job ids, in quotes", param_hint="'PROMPT'")
    body = {"job_ids": job_ids, "prompt": prompt, "max_new_tokens": max_new_tokens}
    body |= given(
        greedy=greedy,
        system=system,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        stop=stop,
        chat_template_kwargs=variables_of(chat_template_kwargs),
    )
    reply = call("POST", "/api/compare-models", json=body)
    for each in reply["answers"]:
        print_line(f"=== {each['job_id'] or reply['base_model']}")
        sys.stdout.write(_said(each) + "\n\n")


def _said(answer: dict[str, Any]) -> str:
    error = answer.get("error")
    return str(answer["generated_text"]) if error is None else f"error: {error['detail']}"


def download(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option(help="Where to; model_<job_id>.zip.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Download an adapter as ZIP."""
    target = output or Path(f"model_{of(job_id)}.zip")
    check_target(target, overwrite=overwrite)
    partial = target.with_name(target.name + ".partial")
    with answer("GET", f"/api/download-model/{of(job_id)}") as response:
        check_room(target, int(response.headers.get("Content-Length", 0)))
        with written(partial), partial.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
    partial.replace(target)
    print_line(f"{target} ({target.stat().st_size} bytes)")
