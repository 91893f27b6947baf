"""Show a dataset's rows as the model reads them."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.text import Text

from sienn_ray.catalog import CATALOG
from sienn_ray.cli.client import DatasetId, call, end, of
from sienn_ray.cli.output import console, print_json, print_line
from sienn_ray.cli.sampling import RowSpecialTokens, RowVariables
from sienn_ray.training.config import DEFAULT_ROW_TOKENS

_LEARNED, _CUT, _CONTROL, _LITERAL = "green", "dim strike", "bold cyan", "bold yellow"
_FATES = {"cut": "cut at max_length", "split": "split", "left_out": "left out of training"}
# What would move the cursor or worse; line ends and tabs are text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LEGEND = "«learned»  ✂ cut off  ⟨text that looks like a special token⟩"


def rows(
    dataset_id: DatasetId,
    base_model: Annotated[
        str, typer.Option("--model", "--base-model", help="Base model whose tokenizer and chat template render.")
    ] = CATALOG[0].id,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the base model; by default its main branch.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens in one example.")] = DEFAULT_ROW_TOKENS,
    long_rows: Annotated[
        str | None, typer.Option(help="What becomes of rows with more: cut (by default), drop, split or fail.")
    ] = None,
    chat_template_kwargs: RowVariables = None,
    special_tokens: RowSpecialTokens = None,
    row: Annotated[int | None, typer.Option(help="The one row to show, 0-based.")] = None,
    offset: Annotated[int | None, typer.Option(help="Rows to pass over.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows at the most, 3 by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer.")] = False,
) -> None:
    """Show rows as the model reads them: what is learned, what is cut off, and which tokens are special."""
    if row is not None and (offset is not None or limit is not None):
        end("--row shows one row; leave out --offset and --limit, or --row")
    page = {"offset": offset or 0, "limit": 3 if limit is None else limit} if row is None else {"row": row}
    query = {"model_name": base_model, "revision": revision, "max_length": max_length, "long_rows": long_rows, **page}
    query |= {"chat_template_kwargs": chat_template_kwargs, "special_tokens": special_tokens}
    found = call(
        "GET",
        f"/api/datasets/{of(dataset_id)}/rendered",
        params={name: value for name, value in query.items() if value is not None},
    )
    if as_json:
        print_json(found)
        return
    for each in found["rows"]:
        _print_row(each)
    print_line(_legend())
    if found["next_offset"] is not None:
        print_line(f"{found['num_rows']} rows; go on with --offset {found['next_offset']}")


def _has_colours() -> bool:
    return console.is_terminal and not console.no_color


def _legend() -> Text | str:
    if not _has_colours():
        return _LEGEND
    return Text.assemble(
        ("learned", _LEARNED), "  ", ("cut off", _CUT), "  ", ("special token", _CONTROL), "  ",
        ("text that looks like one", _LITERAL),
    )  # fmt: skip


def _print_row(row: dict[str, Any]) -> None:
    head = f"row {row['row']} (line {row['line']})"
    if row["fault"] is not None:
        print_line(f"{head}: {_harmless(row['fault'])}\n")
        return
    facts = [_FATES[row["fate"]]] if row["fate"] in _FATES else []
    if row["num_tokens_left_out"]:
        facts.append(f"{row['num_tokens_left_out']} tokens left out")
    if row["num_examples"] > 1:
        facts.append(f"{row['num_examples']} examples")
    print_line(f"{head}: {', '.join(facts)}" if facts else head)
    for number, example in enumerate(row["examples"], start=1):
        print_line(_example_head(number, row["num_examples"], example))
        print_line(rendered(example, has_colours=_has_colours()))
        print_line("")
    if (num_more := row["num_examples"] - len(row["examples"])) > 0:
        print_line(f"... {num_more} more examples")


def _example_head(number: int, num_examples: int, example: dict[str, Any]) -> str:
    name = example["side"] or (f"example {number} of {num_examples}" if num_examples > 1 else "example")
    words = f"-- {name}: {example['num_tokens']} tokens, {example['num_learned_tokens']} learned"
    return f"{words}; left out of training" if example["left_out"] else words


def rendered(example: dict[str, Any], *, has_colours: bool) -> Text | str:
    """Return an example's text in colours, or with marks where there are none.

    Args:
        example: As the service answers.
        has_colours: Whether the terminal has them.
    """
    shown = _harmless(example["text"])
    literals = [mark for mark in example["special_tokens"] if not mark["is_control"]]
    cut = example["cut"]
    rest = f"\n... {example['num_chars'] - len(shown)} more characters" if example["truncated"] else ""
    if not has_colours:
        return _marked(shown, example["learned"], literals, cut) + rest
    text = Text(shown)
    for span in example["learned"]:
        text.stylize(_LEARNED, span["start"], span["end"])
    for mark in example["special_tokens"]:
        text.stylize(_CONTROL if mark["is_control"] else _LITERAL, mark["start"], mark["end"])
    if cut is not None and cut["position"] < len(shown):
        text.stylize(_CUT, cut["position"])
    return text.append(rest)


def _marked(
    text: str, learned: list[dict[str, int]], literals: list[dict[str, Any]], cut: dict[str, int] | None
) -> str:
    # Ends before beginnings, where both are at one place; a mark behind the text isn't shown.
    marks = [(span["end"], 0, "»") for span in learned] + [(mark["end"], 1, "⟩") for mark in literals]
    if cut is not None:
        marks.append((cut["position"], 2, f"✂[{cut['num_tokens']} tokens cut off:]"))
    marks += [(span["start"], 3, "«") for span in learned] + [(mark["start"], 4, "⟨") for mark in literals]
    pieces, done = [], 0
    for place, _, mark in sorted(marks):
        if place > len(text):
            break
        pieces += [text[done:place], mark]
        done = place
    return "".join([*pieces, text[done:]])


def _harmless(text: str) -> str:
    """Show control characters rather than obey them; the text stays as long as it was."""
    return _CONTROLS.sub("\N{SYMBOL FOR SUBSTITUTE FORM TWO}", text)
