"""The pages agree with each other and with what they describe."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sienn_ray import cli
from sienn_ray.errors import FailureReason
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.training.reporting import Phase
from tests.support.markdown_links import anchors, broken_links

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
ACCEPTED = "accepted"
SUPERSEDED = re.compile(r"superseded by \[(?P<number>\d{4})\]\((?P<file>(?P=number)-[a-z0-9-]+\.md)\)")
PATH_PARAMETER = re.compile(r"\{[^}]+\}")


@dataclass(frozen=True)
class Decision:
    """The first four lines of a decision, or a row of the table over all of them."""

    file: str
    number: str
    title: str
    date: str
    status: str


def decision_of(page: Path) -> Decision:
    lines = page.read_text().splitlines()
    head = re.fullmatch(r"# (\d{4}) · (.+)", lines[0])
    date = re.fullmatch(r"- Date: (\d{4}-\d\d-\d\d)", lines[2])
    status = re.fullmatch(r"- Status: (.+)", lines[3])
    assert head, f"{page.name} begins with {lines[0]!r}, not with '# NNNN · title'"
    assert date, f"{page.name} has {lines[2]!r} for '- Date: YYYY-MM-DD'"
    assert status, f"{page.name} has {lines[3]!r} for '- Status: ...'"
    return Decision(page.name, head[1], head[2], date[1], status[1])


def decisions() -> list[Decision]:
    return [decision_of(page) for page in sorted(DECISIONS.glob("*.md")) if page.name != "README.md"]


def table_of_decisions() -> list[Decision]:
    row = re.compile(r"\| \[(\d{4})\]\((\S+)\) \| (\S+) \| (.+) \| (.+) \|")
    rows = [row.fullmatch(line) for line in (DECISIONS / "README.md").read_text().splitlines()]
    return [Decision(found[2], found[1], found[4], found[3], found[5]) for found in rows if found]


def test_every_decision_is_in_the_table_as_it_is() -> None:
    assert decisions()
    assert table_of_decisions() == decisions()


def test_decisions_are_numbered_by_date_and_without_gaps() -> None:
    found = decisions()
    assert [decision.number for decision in found] == [f"{number:04}" for number in range(1, len(found) + 1)]
    assert [decision.file[:4] for decision in found] == [decision.number for decision in found]
    assert [decision.date for decision in found] == sorted(decision.date for decision in found)


@pytest.mark.parametrize("decision", decisions(), ids=lambda decision: decision.number)
def test_a_decision_is_accepted_or_names_the_later_one_that_names_it(decision: Decision) -> None:
    if decision.status == ACCEPTED:
        return
    later = SUPERSEDED.fullmatch(decision.status)
    assert later, (
        f"{decision.file}: {decision.status!r} is neither '{ACCEPTED}' nor 'superseded by [NNNN](NNNN-title.md)'"
    )
    assert later["number"] > decision.number
    assert (DECISIONS / later["file"]).exists(), f"{decision.file} is superseded by {later['file']}, which isn't there"
    assert f"]({decision.file})" in (DECISIONS / later["file"]).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text(
        "# A `code` heading, with marks\n\n# Twice\n\n## Twice\n\n```\n# no heading\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n[a](other.md) [b](#page) [c](other.md#a-code-heading-with-marks) [d](other.md#twice-1)\n"
        "[e](https://example.org/none) `[f](none.md)` [g](none.md)\n[h](#none) [i](other.md#no-heading)\n\n"
        '<img src="none.svg"> ![j](none.png)\n\n| k |\n|---|\n| [l](none/) |\n'
    )
    assert anchors(tmp_path / "other.md") == {"a-code-heading-with-marks", "twice", "twice-1"}
    assert broken_links(page) == ["none.md", "#none", "other.md#no-heading", "none.svg", "none.png", "none/"]


def test_code_names_decisions_that_exist() -> None:
    numbers = {decision.number for decision in decisions()}
    sources = [path for folder in ("sienn_ray", "deployments", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")]
    named = {number for path in sources for number in re.findall(r"docs/decisions/(\d+)", path.read_text())}
    assert named
    assert named <= numbers


def test_table_of_routes_is_the_api() -> None:
    openapi = json.loads((ROOT / "docs" / "openapi.json").read_text())
    routes = {
        f"{method.upper()} {PATH_PARAMETER.sub('{}', path)}"
        for path, item in openapi["paths"].items()
        for method in item
    }
    rows = [line for line in (ROOT / "docs" / "api.md").read_text().splitlines() if line.startswith("| `")]
    named = {
        f"{method} {PATH_PARAMETER.sub('{}', path)}"
        for row in rows
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)`", row)
    }
    assert named == routes


def test_polling_example_ends_wherever_a_job_rests() -> None:
    (ends,) = re.findall(r"status_data\['status'\] in \[(.+)\]", (ROOT / "docs" / "api.md").read_text())
    assert set(re.findall(r"'(\w+)'", ends)) == {status.value for status in JobStatus if status.is_at_rest}


def test_examples_look_at_errors() -> None:
    """An error has none of the fields that an example reads."""
    text = (ROOT / "docs" / "api.md").read_text()
    examples = "".join(re.findall(r"^```(?:python|typescript)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert not re.search(r"resp\.json\(\)\[(?!'detail')|Resp\.json\(\)", examples)


def test_commands_of_the_runbook_exist() -> None:
    named = set(re.findall(r"`sienn ([a-z-]+)", (ROOT / "docs" / "operations.md").read_text()))
    known = {name for each in cli.app.registered_commands if (name := each.name or command_name(each))}
    known |= {each.name for each in cli.app.registered_groups if each.name}
    assert named
    assert named <= known


def test_runbook_has_every_phase_and_every_reason() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert [phase for phase in Phase if f"| `{phase}` |" not in text] == []
    assert [reason for reason in FailureReason if f"| `{reason}` |" not in text] == []


def command_name(command: Any) -> str:
    return str(command.callback.__name__).replace("_", "-")


@pytest.mark.parametrize("page", ["faults.md", "attacks.md"])
def test_tests_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"`(tests/\S+?\.py)?::(\w+)(?:::(\w+))?", (ROOT / "docs" / page).read_text())
    assert named
    file = ""
    for given_file, name, inner in named:
        file = given_file or file  # one without a file is in that of the one before it
        source = (ROOT / file).read_text()
        assert re.search(rf"^(def|async def|class) {name}\b", source, re.MULTILINE), f"{file} has no {name}"
        is_method = re.search(rf"^    (def|async def) {inner}\b", source, re.MULTILINE)
        assert not inner or is_method, f"{name} has no {inner}"


def made(*arguments: str) -> str:
    """Return what `make` prints."""
    run = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout


def test_every_target_is_in_the_help_and_in_the_table() -> None:
    helped = dict(re.findall(r"^make ([\w-]+) +(.+)$", made("help"), re.MULTILINE))
    table = dict(re.findall(r"^\| `make ([\w-]+)` \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert list(helped) == phony[1].split()
    assert helped == table


def test_make_docs_writes_every_page_that_is_made() -> None:
    named = (
        re.search(r'^COMMAND = "(python .+)"$', path.read_text(), re.MULTILINE) for path in ROOT.glob("tools/*.py")
    )
    commands = {found[1] for found in named if found}
    assert commands
    assert {line.partition("bin/")[2] for line in made("--dry-run", "docs").splitlines()} >= commands


def test_readme_names_the_command_that_runs_all_tests() -> None:
    assert "make test" in re.findall(r"^(make \w+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()
