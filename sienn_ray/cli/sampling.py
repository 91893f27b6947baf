"""Options of commands that ask a model: how its next token is chosen."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

System = Annotated[
    str | None, typer.Option(help="System message; none by default, also where the rows had one.", show_default=False)
]
MaxNewTokens = Annotated[int, typer.Option(help="10 to 2000.")]
Greedy = Annotated[
    bool, typer.Option("--greedy", help="Take the likeliest token each time, with no penalty unless one is given.")
]
Seed = Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")]
Temperature = Annotated[float | None, typer.Option(help="0.1 to 2; 0.7 by default.")]
TopP = Annotated[float | None, typer.Option(help="Above 0, to 1; 0.95 by default.")]
TopK = Annotated[int | None, typer.Option(help="Sample from this many tokens; all by default.")]
MinP = Annotated[float | None, typer.Option(help="0 to 1; 0 by default.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="0.5 to 5, 1 is none; 1.2 by default, 1 with --greedy.")]
PresencePenalty = Annotated[float | None, typer.Option(help="-2 to 2; 0 by default.")]
FrequencyPenalty = Annotated[float | None, typer.Option(help="-2 to 2; 0 by default.")]
Stop = Annotated[list[str] | None, typer.Option(help="Ends the answer; may be given up to four times.")]
TemplateVariables = Annotated[
    str | None,
    typer.Option(
        help="Values of the chat template's variables as a JSON object; by default those of the training.",
        metavar="JSON",
    ),
]
# Of rows, as training would read them.
RowVariables = Annotated[
    str | None, typer.Option(help="Values of the chat template's variables as a JSON object.", metavar="JSON")
]
RowSpecialTokens = Annotated[
    str | None,
    typer.Option(
        help="Special tokens in rows of plain text: text, tokens, or auto (by default), as a job finds it out."
    ),
]


def variables_of(text: str | None) -> Any:
    """Read a JSON object; what isn't any stays text, which the service refuses in its words."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def given(*, greedy: bool, **fields: Any) -> dict[str, Any]:
    """Fields of a request as far as they were given; the defaults are the service's own."""
    return {
        **({"do_sample": False} if greedy else {}),
        **{name: value for name, value in fields.items() if value is not None},
    }
