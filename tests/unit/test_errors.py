from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from sienn_ray.errors import CapacityError, FailureReason, InvalidDatasetError, SiennError, TrainingError

# A value for every constructor parameter, none of them its default.
VALUES: dict[str, Any] = {
    "message": "what is wrong, and the way out",
    "line": 17,
    "reason": FailureReason.DIVERGED,
    "retry_after_s": 41,
    "code": "invalid_scope",
    "field": "messages",
    "max_tokens": 4096,
    "names": ("an adapter", "another"),
}


def subclasses(cls: type[SiennError]) -> list[type[SiennError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in subclasses(child))]


@pytest.mark.parametrize("error_class", subclasses(SiennError))
def test_error_pickles_with_its_fields(error_class: type[SiennError]) -> None:
    error = error_class(**{name: VALUES[name] for name in inspect.signature(error_class).parameters})
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))
    assert type(copy) is error_class
    assert vars(copy) == vars(error)
    assert str(copy) == str(error) == error.message


@pytest.mark.parametrize("error_class", subclasses(SiennError))
def test_error_is_documented(error_class: type[SiennError]) -> None:
    assert inspect.getdoc(error_class) != inspect.getdoc(Exception)
    tree = inspect.getdoc(inspect.getmodule(SiennError))
    assert error_class.__name__ in str(tree)


@pytest.mark.parametrize("reason", FailureReason)
def test_failure_reason_survives_pickling(reason: FailureReason) -> None:
    assert pickle.loads(pickle.dumps(TrainingError("lost", reason))).reason is reason


@pytest.mark.parametrize(
    ("message", "line", "expected"),
    [
        ("no response", None, "no response"),
        ("no response", 3, "line 3: no response"),
        ("line 3: no response", 3, "line 3: no response"),
        ("no rows", 0, "line 0: no rows"),
    ],
)
def test_dataset_error_says_its_line_once(message: str, line: int | None, expected: str) -> None:
    assert str(InvalidDatasetError(message, line)) == expected


def test_fields_have_defaults() -> None:
    assert TrainingError("lost").reason is FailureReason.INTERNAL
    assert CapacityError("full").retry_after_s > 0
