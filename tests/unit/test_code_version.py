"""The version of the running code changes with each edit of a source file, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sienn_ray import __version__
from sienn_ray.code_version import code_version, digest_of_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "part").mkdir()
    (tmp_path / "a.py").write_text("one = 1\n")
    (tmp_path / "part" / "b.py").write_text("two = 2\n")
    return tmp_path


def test_it_names_the_release() -> None:
    release, _, digest = code_version().partition("+")
    assert release == __version__
    assert len(digest) == 12


@pytest.mark.parametrize(
    "edit",
    [
        lambda folder: (folder / "part" / "b.py").write_text("two = 3\n"),
        lambda folder: (folder / "a.py").rename(folder / "c.py"),
        lambda folder: (folder / "a.py").unlink(),
        lambda folder: (folder / "new.py").touch(),
    ],
)
def test_edited_code_is_another_version(folder: Path, edit: Callable[[Path], object]) -> None:
    before = digest_of_sources(folder)
    edit(folder)
    assert digest_of_sources(folder) != before


def test_what_is_no_source_is_left_out(folder: Path) -> None:
    before = digest_of_sources(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    (folder / "notes.md").write_text("x")
    assert digest_of_sources(folder) == before
