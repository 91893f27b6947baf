"""Start a fine-tune, and watch it."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from sienn_ray.catalog import CATALOG
from sienn_ray.cli.client import JobId, call_once, end, of
from sienn_ray.cli.live import follow
from sienn_ray.cli.output import console, print_line
from sienn_ray.cli.wording import in_own_words
from sienn_ray.datasets.weights import parsed_weight
from sienn_ray.errors import InvalidInputError
from sienn_ray.training.hyperparameters import HYPERPARAMETERS, Hyperparameter, parsed

_GOES_ON = frozenset({"pending", "running"})


def _with_hyperparameters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each hyperparameter, in place of its `**hyperparameters`."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [_option_of(hyperparameter) for hyperparameter in HYPERPARAMETERS]

    @functools.wraps(command)
    def with_options(*positional: Any, **given: Any) -> None:
        command(*positional, **given)

    with_options.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in (*own, *options)}
    return with_options


def _option_of(hyperparameter: Hyperparameter) -> inspect.Parameter:
    """An option that says nothing by default: the default is the service's own."""
    return inspect.Parameter(
        hyperparameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(None, help=hyperparameter.help, rich_help_panel=_panel(hyperparameter)),
        annotation=hyperparameter.option_type | None,
    )


def _panel(hyperparameter: Hyperparameter) -> str:
    """Heading in the command's help; pairs of options are long, so they have a table of their own."""
    if hyperparameter.is_of_adapter:
        return "LoRA adapter"
    return "Hyperparameters, on or off" if hyperparameter.option_type is bool else "Hyperparameters"


@_with_hyperparameters
def train(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET[:WEIGHT]...",
            help="The dataset's id. Rows of several are mixed; a weight says how often an epoch has each of its rows.",
        ),
    ],
    *,
    base_model: Annotated[
        str | None,
        typer.Option(help=f"Hub id of the base model; by default {CATALOG[0].id}, or that of --from-job."),
    ] = None,
    from_job: Annotated[
        str | None,
        typer.Option(help="Start from the adapter of this completed job: SFT first, then preferences, or more of it."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the base model; by default its main branch.")
    ] = None,
    validation_dataset_id: Annotated[
        str | None, typer.Option(help="Evaluate on this dataset, instead of a share of the other's rows.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label, KEY=VALUE; may be given more than once.")] = None,
    priority: Annotated[
        str | None, typer.Option(help="low, normal or high among one's own jobs; urgent, for admins, above all.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="The same command with the same key makes no second job; by default, each has its own."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Watch it until it ends.")] = True,
    **hyperparameters: Any,
) -> None:
    """Start a fine-tune."""
    given = {
        **parsed(hyperparameters),
        "validation_dataset_id": validation_dataset_id,
        "model_name": base_model,
        "from_job": from_job,
        "revision": revision,
        "name": name,
        "labels": _labels(label or []),
        "priority": priority,
    }
    body = {field: value for field, value in given.items() if value is not None}
    body |= _subject(datasets)
    # One for each command by default, so that its own repeats make one job.
    started = call_once("POST", "/api/start-finetuning", idempotency_key or str(uuid.uuid4()), json=body)
    # A service of an earlier version says one of them.
    for words in started.get("warnings") or filter(None, [started.get("warning")]):
        print_line(f"warning: {in_own_words(words)}")
    print_line(f"job_id: {started['job_id']}")
    if wait:
        watch(started["job_id"])


def _subject(texts: list[str]) -> dict[str, Any]:
    """One dataset as the service always took it, or several with their weights."""
    mixture = [_weighted(text) for text in texts]
    if len(mixture) == 1 and mixture[0]["weight"] == 1.0:
        return {"dataset_id": mixture[0]["dataset_id"]}
    return {"datasets": mixture}


def _weighted(text: str) -> dict[str, Any]:
    dataset_id, sign, weight = text.partition(":")
    if not sign:
        return {"dataset_id": dataset_id, "weight": 1.0}
    try:
        return {"dataset_id": dataset_id, "weight": parsed_weight(weight)}
    except InvalidInputError as error:
        end(f"dataset '{text}': {error.message}")


def _labels(texts: list[str]) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in texts]
    for text, (_, sign, _) in zip(texts, pairs, strict=True):
        if not sign:
            end(f"label '{text}' is not of the form KEY=VALUE")
    return {key: value for key, _, value in pairs} or None


def watch(job_id: JobId) -> None:
    """Follow a job until it ends or is paused: epoch, loss and time left."""
    job: dict[str, Any] = {}
    how_it_ended = ""
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"), console=console,
    ) as bar:  # fmt: skip
        row = bar.add_task("waiting", total=100, facts="")
        for update, data in follow(f"/api/events/jobs/{of(job_id)}?logs=false"):
            if update == "status":
                job = data
                bar.update(row, completed=job["progress"], description=job["message"][:60], facts=facts(job["meta"]))
            elif update == "end":
                how_it_ended = str(data["detail"])
    if job["status"] in _GOES_ON:
        end(how_it_ended)
    if job["status"] == "failed":
        end(f"the job failed ({job['meta'].get('failure_reason')}): {job['message']}")
    if job["status"] == "paused":
        end("the job is paused; `sienn resume` has it go on")
    if job["status"] == "cancelled":
        end("the job was cancelled; `sienn retry` puts it back into the queue")


def facts(meta: dict[str, Any]) -> str:
    """Loss, speed and time left of a running job, as far as they are known."""
    loss, speed, left = (meta.get(name) for name in ("current_loss", "tokens_per_s", "time_left_s"))
    parts = [
        f"epoch {meta['current_epoch']}/{meta['total_epochs']}" if meta["current_epoch"] else "",
        f"loss {loss:.3f}" if loss is not None else "",
        f"eval loss {meta['eval_loss']:.3f}" if meta.get("eval_loss") is not None else "",
        *_preferred(meta),
        f"{speed:.0f} tokens/s" if speed else "",
        f"{int(left) // 60}:{int(left) % 60:02d} left" if left else "",
    ]
    return "  ".join(part for part in parts if part)


def _preferred(meta: dict[str, Any]) -> list[str]:
    """Reward margin and accuracy where preferences are learned, of an evaluation once there is one."""
    prefix = "eval_" if meta.get("eval_rewards_margins") is not None else ""
    margin, accuracy = (meta.get(f"{prefix}rewards_{name}") for name in ("margins", "accuracies"))
    return [
        f"margin {margin:.3f}" if margin is not None else "",
        f"chosen over rejected {accuracy:.0%}" if accuracy is not None else "",
    ]
