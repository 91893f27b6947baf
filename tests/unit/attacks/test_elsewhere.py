"""Server-side request forgery: no id, URL or row of a user has the service ask another machine but the model hub."""

from __future__ import annotations

import json
import socket
from typing import Any

import huggingface_hub.constants
import pytest
from starlette.testclient import TestClient

from tests.unit.attacks.operations import Place, places

# Places that name a base model.
MODELS = tuple(
    place
    for place in places()
    if place.name in {"model_name", "model", "base_model", "revision"} and place.operation != "export_model"
)
URLS = (
    "http://169.254.169.254/latest/meta-data/",
    "https://127.0.0.1:8265/api/jobs/",
    "http://[::1]/x",
    "//evil.example/x",
    "evil.example:443/x",
    "owner@evil.example/x",
    "file:///etc/passwd",
    "hf://owner/model",
    "s3://bucket/model",
    "git+ssh://evil.example/x",
    "owner/model?endpoint=http://evil.example",
    "owner/model#x",
    "owner/model@http://evil.example",
    "owner/../../evil",
    "http:evil",
    "owner/model/../../x",
    "owner%2Fmodel%2F..",
    "\\\\evil.example\\share",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Hosts that something wants to reach; none is. The hub may be asked."""
    hosts: list[Any] = []

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        hosts.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: refuse(address))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    return hosts


@pytest.mark.parametrize("place", MODELS, ids=str)
def test_a_url_is_no_base_model(client: TestClient, asked: list[Any], place: Place) -> None:
    for url in URLS:
        response = place.send(client, url)
        assert response.status_code in {400, 404, 422, 200}, response.text
        if response.status_code == 200:
            assert response.request.method == "GET"  # a filter of a list, which finds nothing
        assert asked == [], url


def test_there_are_such_places() -> None:
    assert len(MODELS) >= 5


def test_an_id_of_the_hub_s_form_is_asked_for_at_the_hub_alone(client: TestClient, asked: list[Any]) -> None:
    """Or the test above would show nothing."""
    (place,) = (each for each in MODELS if str(each) == "start_finetuning.body.model_name")
    assert place.send(client, "nobody/knows-this-one").status_code == 503
    hosts = {host if isinstance(host, str) else host[0] for host in asked}
    assert hosts == {"huggingface.co"}


@pytest.mark.parametrize("url", URLS[:3])
def test_urls_in_rows_are_text(client: TestClient, asked: list[Any], url: str) -> None:
    chat = [{"role": "user", "content": f"![]({url})"}, {"role": "assistant", "content": url}]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    for row, is_taken in (({"text": url}, True), ({"messages": chat}, True), ({"messages": image}, False)):
        response = client.post("/api/upload-dataset", files={"file": ("rows.jsonl", json.dumps(row).encode())})
        assert (response.status_code == 201) is is_taken, response.text
    question = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    answer = client.post("/v1/chat/completions", json={"model": "job-1", "messages": question})
    assert answer.status_code == 400
    assert asked == []


def test_no_path_on_this_machine_is_a_base_model(client: TestClient, asked: list[Any], tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    (place,) = (each for each in MODELS if str(each) == "start_finetuning.body.model_name")
    for path in (str(tmp_path), f".{tmp_path}", ".", "..", "~", "./model"):
        assert place.send(client, path).status_code == 400
    assert asked == []
