"""Quotas over the whole application: who sees and sets them, and uploads that would go beyond."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.access.claim_rules import ClaimRules
from sienn_ray.access.principals import Credential, Scope
from sienn_ray.access.quotas import Quotas
from sienn_ray.api.app import create_app
from sienn_ray.errors import InvalidTokenError
from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.test_authentication import ADMIN, ADMIN_KEY, key_of

ROW = b'{"instruction": "a", "response": "b"}\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY, owner_max_exports=9)


@pytest.fixture
def ada(tracker: InProcessTracker) -> dict[str, str]:
    return {"X-API-Key": key_of(tracker, "ada", Scope.READ, Scope.TRAIN)}


def files(settings: Settings) -> list[Path]:
    """What is in storage."""
    return [path for path in (settings.home / "storage").rglob("*") if path.is_file()]


def test_an_admin_sets_them_and_their_owner_sees_them(client: TestClient, ada: dict[str, str]) -> None:
    body = {"owner": "ada", "max_pending_jobs": 3, "max_stored_bytes": 1000}
    assert client.put("/api/limits", json=body, headers=ADMIN).status_code == 200
    seen = client.get("/api/limits", headers=ada).json()
    assert seen["owner"] == "ada"
    assert seen["pending_jobs"] == {"used": 0, "limit": 3, "is_own": True}
    assert seen["exports"] == {"used": 0, "limit": 9, "is_own": False}
    assert seen["running_jobs"]["limit"] is None
    assert client.get("/api/limits?owner=ada", headers=ADMIN).json() == seen
    assert client.get("/api/auth/me", headers=ada).json()["limits"] == seen
    assert client.put("/api/limits", json={"owner": "ada"}, headers=ADMIN).json()["pending_jobs"]["limit"] is None


def test_others_neither_see_nor_set_them(client: TestClient, ada: dict[str, str]) -> None:
    assert client.get("/api/limits?owner=bob", headers=ada).status_code == 403
    assert client.get("/api/limits?owner=ada", headers=ada).status_code == 200
    assert client.put("/api/limits", json={"owner": "ada", "max_exports": 99}, headers=ada).status_code == 403


@pytest.mark.parametrize("body", [{}, {"owner": ""}, {"owner": "a", "max_exports": -1}, {"owner": "a", "exports": 1}])
def test_what_is_wrong_is_named(client: TestClient, body: dict[str, Any]) -> None:
    assert client.put("/api/limits", json=body, headers=ADMIN).status_code == 422


ISSUER = "https://login.example.org/realms/a"
NAMES = {
    "plain": ("ada", True),
    "an address": ("ada+lovelace@example.org", True),
    "blanks within": ("Ada Lovelace, (née Byron)", True),
    "any script": ("愛達", True),
    "as long as may be": ("a" * (255 - len(ISSUER) - 1), True),
    "one longer": ("a" * (255 - len(ISSUER)), False),
    "a line": ("ada\nbob", False),
    "a line at the end": ("ada\n", False),
    "a blank at the end": ("ada ", False),
    "NUL": ("ada\0", False),
    "written backwards": ("ada\u202ebob", False),
    "not seen": ("ada\u200b", False),
}


@pytest.mark.parametrize(("name", "is_one"), NAMES.values(), ids=NAMES)
def test_who_an_issuer_names_can_have_limits_and_keys(client: TestClient, name: str, is_one: bool) -> None:
    """One rule for owners, wherever they come from."""
    owner = f"{ISSUER}|{name}"

    def is_known_from_claims() -> bool:
        try:
            return ClaimRules().principal_of(ISSUER, {"sub": name}, Credential.OIDC_TOKEN).owner == owner
        except InvalidTokenError:
            return False

    assert is_known_from_claims() == is_one
    made = [
        client.put("/api/limits", json={"owner": owner, "max_exports": 1}, headers=ADMIN),
        client.get("/api/limits", params={"owner": owner}, headers=ADMIN),
        client.get("/api/usage", params={"owner": owner}, headers=ADMIN),
        client.post("/api/keys", json={"name": "a", "owner": owner}, headers=ADMIN),
    ]
    expected = [200, 200, 200, 201] if is_one else [422] * 4
    assert [each.status_code for each in made] == expected, [each.text for each in made]
    if not is_one:
        assert {"must have 1 to 255 printable" in each.text for each in made} == {True}
    else:
        assert made[1].json()["exports"] == {"used": 0, "limit": 1, "is_own": True}
        entries = client.get("/api/audit", params={"principal": owner}, headers=ADMIN)
        assert entries.status_code == 200, entries.text


def test_half_characters_are_no_owner() -> None:
    with pytest.raises(InvalidTokenError, match="can't be shown"):
        ClaimRules().principal_of(ISSUER, {"sub": "ada\ud800"}, Credential.OIDC_TOKEN)


def upload(client: TestClient, headers: dict[str, str], content: bytes, **options: Any) -> Any:
    files = {"file": ("rows.jsonl", content)}
    return client.post("/api/upload-dataset", files=files, headers=headers, **options)


def test_an_upload_up_to_the_bound_and_one_beyond(
    client: TestClient, tracker: InProcessTracker, ada: dict[str, str], settings: Settings
) -> None:
    tracker.actor.set_owner_quotas("ada", Quotas(max_stored_bytes=2 * len(ROW)))
    assert upload(client, ada, 2 * ROW).status_code == 201
    kept = files(settings)
    refused = upload(client, ada, ROW)
    assert refused.status_code == 403
    assert f"you store {2 * len(ROW)} bytes and may store {2 * len(ROW)}" in refused.json()["detail"]
    assert files(settings) == kept, "nothing is left behind"


def test_a_declared_length_beyond_the_bound_is_refused_before_the_body_is_read(
    client: TestClient, tracker: InProcessTracker, ada: dict[str, str]
) -> None:
    tracker.actor.set_owner_quotas("ada", Quotas(max_stored_bytes=100))
    headers = {**ada, "Content-Length": str(10**9), "Content-Type": "multipart/form-data; boundary=x"}

    refused = client.post("/api/upload-dataset", content=b"--x\r\n", headers=headers)
    assert refused.status_code == 403
    assert "may store 100" in refused.json()["detail"]


def test_a_body_without_a_declared_length_is_cut_at_the_bound(
    client: TestClient, tracker: InProcessTracker, ada: dict[str, str], settings: Settings
) -> None:
    tracker.actor.set_owner_quotas("ada", Quotas(max_stored_bytes=1000))
    num_sent = 0

    def body() -> Any:
        nonlocal num_sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        for _ in range(1000):
            num_sent += 1
            yield 100 * ROW

    headers = {**ada, "Content-Type": "multipart/form-data; boundary=x"}
    refused = client.post("/api/upload-dataset", content=body(), headers=headers)
    assert refused.status_code == 403
    assert files(settings) == []


def test_who_comes_second_leaves_nothing_behind(
    client: TestClient, tracker: InProcessTracker, ada: dict[str, str], settings: Settings
) -> None:
    """The room was there when the upload began, and isn't any more when its record is written."""
    tracker.actor.set_owner_quotas("ada", Quotas(max_stored_bytes=4 * len(ROW)))
    rival = dataset_record(id="rival", owner="ada", size_bytes=4 * len(ROW))
    tracker.before["add_dataset"] = lambda *_: tracker.actor.add_dataset(rival)
    assert upload(client, ada, ROW).status_code == 403
    assert files(settings) == []


def test_nothing_is_bounded_unless_it_is_set(tmp_path: Path) -> None:
    with TestClient(create_app(fake_backends(Settings(env="test", home=tmp_path)))) as client:
        limits = client.get("/api/limits").json()
        assert limits.pop("owner") == "admin"
        assert {quota["limit"] for quota in limits.values()} == {None}


def test_versions_count_as_uploads_do(
    client: TestClient, tracker: InProcessTracker, ada: dict[str, str], settings: Settings
) -> None:
    first = upload(client, ada, ROW).json()["dataset_id"]
    kept = files(settings)
    stored = tracker.actor.quota_state("ada").use.stored_bytes
    tracker.actor.set_owner_quotas("ada", Quotas(max_stored_bytes=stored + len(ROW) + 1))
    path = f"/api/datasets/{first}/versions?change=append"
    refused = client.post(path, files={"file": ("more.jsonl", ROW)}, headers=ada)
    assert refused.status_code == 403, refused.text
    assert "the rows of both together have more than" in refused.json()["detail"]
    assert files(settings) == kept, "nothing is left behind"
    tracker.actor.set_owner_quotas("ada", Quotas(max_stored_bytes=10_000))
    added = client.post(path, files={"file": ("more.jsonl", ROW)}, headers=ada).json()
    assert tracker.actor.quota_state("ada").use.stored_bytes == stored + added["size_bytes"]
