from __future__ import annotations

import re
from datetime import timedelta

import pytest

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord
from sienn_ray.access.principals import Principal, Scope
from sienn_ray.errors import ForbiddenError
from sienn_ray.jobs.schema import utc_now


def record_of(key: ApiKey, **fields: object) -> ApiKeyRecord:
    values = {"name": "laptop", "owner": "ada", "scopes": {Scope.READ}, "created_at": utc_now(), **fields}
    return ApiKeyRecord.model_validate({"id": "key-1", "prefix": key.prefix, "sha256": key.sha256, **values})


def test_keys_are_random_and_read_again() -> None:
    keys = {ApiKey.random().text for _ in range(100)}
    assert len(keys) == 100
    for text in keys:
        assert re.fullmatch(r"sienn_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}", text)
        parsed = ApiKey.parsed(text)
        assert parsed is not None
        assert parsed.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sienn",
        "any",
        "sienn_a_b",
        f"sienn_{'a' * 12}_{'b' * 42}",
        f"sienn_{'a' * 12}_{'b' * 43}\n",
        f"sienn_{'ä' * 12}_{'b' * 43}",
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert ApiKey.parsed(text) is None


def test_the_secret_is_in_no_representation() -> None:
    key = ApiKey.random()
    record = record_of(key)
    shown = f"{key} {key!r} {record} {record!r} {record.model_dump_json()}"
    assert key.secret not in shown
    assert key.prefix in shown


def test_only_the_right_secret_fits() -> None:
    key = ApiKey.random()
    record = record_of(key)
    assert record.is_of(key)
    assert not record.is_of(ApiKey(key.prefix, ApiKey.random().secret))


def test_a_key_ends_when_it_expires_or_is_revoked() -> None:
    now = utc_now()
    key = ApiKey.random()
    assert record_of(key).fault_at(now) is None
    assert record_of(key, expires_at=now + timedelta(seconds=1)).fault_at(now) is None
    assert "has expired at 20" in str(record_of(key, expires_at=now).fault_at(now))
    assert "has been revoked at 20" in str(record_of(key, revoked_at=now, expires_at=now).fault_at(now))


class TestPrincipal:
    def test_one_of_the_scopes_is_enough(self) -> None:
        caller = Principal("ada", frozenset({Scope.READ, Scope.INFER}))
        caller.check(Scope.READ)
        caller.check(Scope.TRAIN, Scope.READ)
        with pytest.raises(ForbiddenError, match=r"needs the scope 'train' or 'export', .* has: infer, read"):
            caller.check(Scope.TRAIN, Scope.EXPORT)

    def test_an_admin_has_all(self) -> None:
        for scope in Scope:
            Principal("ada", frozenset({Scope.ADMIN})).check(scope)

    def test_who_has_none_is_told(self) -> None:
        with pytest.raises(ForbiddenError, match="has: none"):
            Principal("", frozenset()).check(Scope.READ)
