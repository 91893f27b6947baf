"""What `make check` looks for beside format, lint and types: that it finds it, and what it lets pass."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tools.known_vulnerabilities import ACCEPTED, Acceptance, verdict_of
from tools.secret_scan import scan

ROOT = Path(__file__).parents[2]
TODAY = datetime.date(2026, 11, 29)
SHIPPED = ("sienn_ray", "deployments", "examples", "tools")
# Put together here, or this file would be found.
PLANTED = {
    "GitHub": "ghp_" + "x8Zq2Lw7TnR4vKs9Bd3Fj6Hm1Yc5Ga0PeUiO",
    "OpenSSH": "-----BEGIN PRIVATE " + "KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
    "\n-----END PRIVATE KEY-----",
    "Hugging Face": "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi",
}


class TestSecrets:
    @pytest.mark.parametrize("kind", PLANTED)
    def test_a_planted_key_is_found_and_not_shown(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "settings.py").write_text(f'token = """{PLANTED[kind]}"""\n')
        found = scan([tmp_path / "settings.py"])
        assert "settings.py" in found
        assert PLANTED[kind] not in found

    def test_what_is_none_passes(self, tmp_path: Path) -> None:
        (tmp_path / "settings.py").write_text('token = os.environ["HF_TOKEN"]\n')
        assert scan([tmp_path / "settings.py"]) == ""

    def test_a_line_can_be_marked(self, tmp_path: Path) -> None:
        (tmp_path / "settings.py").write_text(f'token = "{PLANTED["GitHub"]}"  # kingfisher:ignore\n')
        assert scan([tmp_path / "settings.py"]) == ""


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {
    "name": "bad",
    "version": "1",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2"], "description": "..."}],
}
UNKNOWN = {"name": "own-build", "skip_reason": "Dependency not found on PyPI"}


class TestVulnerabilities:
    def test_a_known_one_fails(self) -> None:
        verdict = verdict_of(answer(GOOD, BAD), "", TODAY, {})
        assert verdict.is_failure
        assert "bad 1: PYSEC-1, fixed in 2" in verdict.words

    @pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
    def test_one_that_is_accepted_passes_until_its_day(self, name: str) -> None:
        accepted = {name: Acceptance("only on Windows", TODAY)}
        assert not verdict_of(answer(BAD), "", TODAY, accepted).is_failure
        later = verdict_of(answer(BAD), "", TODAY + datetime.timedelta(days=1), accepted)
        assert later.is_failure
        assert "only on Windows" in later.words

    @pytest.mark.parametrize(
        ("output", "errors"),
        [
            ("", "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org')"),
            ("", "pip_audit._service.interface.ConnectionError: Could not connect to PyPI's vulnerability feed"),
            (answer(UNKNOWN, UNKNOWN), ""),
        ],
    )
    def test_without_an_index_it_is_said_and_passes(self, output: str, errors: str) -> None:
        verdict = verdict_of(output, errors, TODAY)
        assert not verdict.is_failure
        assert "NOT CHECKED" in verdict.words

    def test_what_the_index_doesn_t_know_is_named(self) -> None:
        verdict = verdict_of(answer(GOOD, UNKNOWN), "", TODAY)
        assert (verdict.is_failure, "own-build" in verdict.words) == (False, True)

    def test_a_broken_check_fails(self) -> None:
        assert verdict_of("", "ERROR: constraints.txt is malformed", TODAY).is_failure

    def test_what_is_accepted_has_a_reason_and_an_end(self) -> None:
        assert [name for name, each in ACCEPTED.items() if len(each.reason) < 20] == []


class TestBandit:
    def test_code_that_is_unsafe_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "unsafe.py").write_text("import yaml\nyaml.load(open('x'))\n")
        command = [
            sys.executable,
            "-m",
            "bandit",
            "-q",
            "-c",
            str(ROOT / "pyproject.toml"),
            str(tmp_path / "unsafe.py"),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (result.returncode, "yaml_load" in result.stdout) == (1, True)

    def test_nothing_is_skipped_as_a_whole(self) -> None:
        configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bandit"]
        assert set(configured) == {"exclude_dirs"}

    def test_each_exception_names_its_rule_and_its_reason(self) -> None:
        marked = [
            (path, line)
            for folder in SHIPPED
            for path in (ROOT / folder).rglob("*.py")
            for line in path.read_text().splitlines()
            if re.search(r"#\s*nosec\b", line) and path.name != "test_checks.py"
        ]
        assert marked
        wrong = [f"{path}: {line}" for path, line in marked if not re.search(r"# nosec B\d+(, B\d+)* # \w.{6,}", line)]
        assert wrong == []

    def test_make_check_looks_at_all_that_is_shipped(self) -> None:
        makefile = (ROOT / "Makefile").read_text()
        assert f"bandit -q -c pyproject.toml -r {' '.join(SHIPPED)}" in makefile
        assert "tools.secret_scan" in makefile
        assert "tools.known_vulnerabilities" in makefile
