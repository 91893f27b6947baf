"""The API and the command line agree on what a job can be called."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sienn_ray.api.schemas.finetuning import JobName, Labels
from sienn_ray.jobs.naming import is_label, is_name


def takes(kind: Any, value: Any) -> bool:
    """Whether the API's type has this value."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("a", True),
        ("x" * 200, True),
        ("Fähre \N{ZERO WIDTH JOINER}", True),
        ("non-breaking\N{NO-BREAK SPACE}space", True),
        ("", False),
        ("x" * 201, False),
        ("two\nlines", False),
        ("line end\n", False),
        ("\N{RIGHT-TO-LEFT OVERRIDE}b", False),
    ],
)
def test_names(name: str, is_taken: bool) -> None:
    assert is_name(name) is is_taken
    assert takes(JobName, name) is is_taken


@pytest.mark.parametrize(
    ("key", "value", "is_taken"),
    [
        ("team", "ships", True),
        ("note", "a=b", True),
        ("empty", "", True),
        ("k" * 63, "v" * 255, True),
        ("k" * 64, "v", False),
        ("k", "v" * 256, False),
        ("", "v", False),
        (".k", "v", False),
        ("a b", "v", False),
        ("k", "a\x00", False),
        ("k", "line end\n", False),
    ],
)
def test_labels(key: str, value: str, is_taken: bool) -> None:
    assert is_label(f"{key}={value}") is is_taken
    assert takes(Labels, {key: value}) is is_taken


def test_a_label_has_a_sign_between_key_and_value() -> None:
    assert not is_label("team")
