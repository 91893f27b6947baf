"""Path traversal: no text that a user sends leads out of the folders of the service."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sienn_ray.errors import ArtifactError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.unit.attacks.operations import Place, places

CANARY = "what-no-request-may-read"
UPS = "../" * 12
# As they are; in paths of URLs they are percent-encoded besides.
TRAVERSALS = (
    "../canary.txt",
    "../../canary.txt",
    f"{UPS}etc/passwd",
    "..",
    ".",
    "./../canary.txt",
    "....//canary.txt",
    "..\\canary.txt",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "//etc/passwd",
    "C:\\windows\\win.ini",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "job-1/../../canary.txt",
    "job-1\0.txt",
    "..%2fcanary.txt",
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}\N{FULLWIDTH SOLIDUS}canary.txt",
    "\N{TWO DOT LEADER}\N{FRACTION SLASH}canary.txt",
    "job-1\N{RIGHT-TO-LEFT OVERRIDE}txt.yranac/..",
)
# Percent-encoded in other ways than clients do, for paths.
ENCODED = (
    "..%2f..%2fcanary.txt",
    "..%252f..%252fcanary.txt",
    "%2e%2e%2fcanary.txt",
    "%252e%252e%252fcanary.txt",
    "..%5ccanary.txt",
    "..%c0%afcanary.txt",
    "%c0%ae%c0%ae%2fcanary.txt",
    "..;%2fcanary.txt",
    "%00",
    "job-1%00.txt",
    "%2fetc%2fpasswd",
    "%ff%fe",
)
# What is in the home's neighbourhood is there to be read, and may neither be changed nor be joined by anything.
_NO_TEXT = {422, 400, 404, 403, 405, 307, 401, 409, 410, 503}


def outside(tmp_path: Path) -> dict[str, bytes]:
    """Files beside the service's home, with their content."""
    return {
        str(path): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_relative_to(tmp_path / "home")
    }


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Files that a traversal from any folder of the service would meet."""
    for folder in (tmp_path, tmp_path / "home", tmp_path / "home" / "storage"):
        folder.mkdir(exist_ok=True)
        (folder / "canary.txt").write_text(CANARY)
    return tmp_path


@pytest.mark.parametrize("place", places(), ids=str)
def test_nothing_outside_is_reached(client: TestClient, canary: Path, place: Place) -> None:
    before = outside(canary)
    attempts = [(text, False) for text in TRAVERSALS]
    if place.where == "path":
        attempts += [(text, True) for text in ENCODED]
    for text, is_encoded in attempts:
        response = place.send(client, text, is_encoded=is_encoded)
        assert response.status_code < 500 or response.status_code == 503, (text, response.text)
        assert CANARY not in response.text, text
        assert "root:x:0" not in response.text, text
    assert outside(canary) == before


def test_there_are_such_places() -> None:
    """The test above looks at all kinds of them."""
    assert len(places()) > 40
    assert {place.where for place in places()} == {"path", "query", "header", "body"}


@pytest.mark.parametrize("text", TRAVERSALS)
def test_an_id_that_is_a_path_is_not_found(client: TestClient, text: str) -> None:
    for place in places():
        if place.where == "path" and place.name.endswith("_id"):
            assert place.send(client, text).status_code in _NO_TEXT


@pytest.mark.parametrize("text", [*TRAVERSALS, "a//b", "a/", "/a", "", "a/.hidden", "a\nb"])
def test_a_key_of_storage_stays_below_its_root(settings: Settings, text: str) -> None:
    storage = Storage(settings.storage_url)
    for key in (text, f"adapters/{text}", f"adapters/{text}/file"):
        if all(part and part.strip(".") and part.isascii() and part.isalnum() for part in key.split("/")):
            continue
        with pytest.raises(ArtifactError, match="is no storage key"):
            storage.path(key)
