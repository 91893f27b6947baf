"""Every place of the API that takes text, read from its OpenAPI document, and requests with text in one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from tests.support.fakes_backends import fake_backends

JOB, DATASET, EXPORT = "job-1", "dataset-1", "export-1"
IDS = {"dataset_id": DATASET, "job_id": JOB, "export_id": EXPORT, "key_id": "key-1", "model": JOB}
# Least bodies that are well-formed.
BODIES: dict[str, dict[str, Any]] = {
    "start_finetuning": {"dataset_id": DATASET, "model_name": "owner/model"},
    "import_dataset": {"source": "no source"},
    "test_model": {"job_id": JOB, "prompt": "Hello"},
    "ask_newest": {"prompt": "Hello"},
    "compare_models": {"job_ids": [JOB], "prompt": "Hello"},
    "create_chat_completion": {"model": JOB, "messages": [{"role": "user", "content": "Hello"}]},
    "create_completion": {"model": JOB, "prompt": "Hello"},
    "export_model": {"format": "ollama", "model_name": "mine"},
    "create_key": {"name": "one more"},
    "rotate_key": {},
}
# Words that a model is asked, or that only people read: any text is right there, and names nothing.
FREE_TEXT = {"prompt", "system", "stop", "user", "suffix"}


@dataclass(frozen=True)
class Place:
    """A parameter or a field that takes text.

    Args:
        operation: The operation's id.
        method: HTTP method.
        path: The path, with its parameters.
        where: `path`, `query`, `header` or `body`.
        name: Its name.
    """

    operation: str
    method: str
    path: str
    where: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation}.{self.where}.{self.name}"

    def send(self, client: TestClient, text: str, *, is_encoded: bool = False) -> Any:
        """Send a request with text in this place.

        Args:
            client: The API's.
            text: What is there.
            is_encoded: Whether it is percent-encoded as it is, in a path.
        """
        values = {name: quote(value, safe="") for name, value in IDS.items()}
        query: dict[str, str] = {"limit": "1"} if self.operation.startswith("follow_") else {}
        headers: dict[str, str] = {}
        body = dict(BODIES.get(self.operation, {}))
        if self.where == "path":
            # Clients resolve dots that aren't encoded, and ask for another path.
            values[self.name] = text if is_encoded else quote(text, safe="").replace(".", "%2E")
        elif self.where == "query":
            query[self.name] = text
        elif self.where == "header":
            headers[self.name] = quote(text, safe="/ ")  # a client of HTTP sends nothing else
        else:
            body[self.name] = [text] if isinstance(body.get(self.name), list) else text
        path = re.sub(r"\{(\w+)(?::path)?\}", lambda match: values.get(match[1], JOB), self.path)
        options: dict[str, Any] = {"json": body} if self.operation in BODIES else {}
        return client.request(self.method, path, params=query, headers=headers, **options)


@cache
def places() -> tuple[Place, ...]:
    """Return all places."""
    document = create_app(fake_backends(Settings(env="test"))).openapi()
    return tuple(
        Place(operation["operationId"], method.upper(), path, where, name)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for where, name in _texts_of(operation, document)
    )


def operations() -> dict[str, tuple[str, str]]:
    """Return method and path of each operation that takes a JSON body."""
    return {each.operation: (each.method, each.path) for each in places() if each.operation in BODIES}


def _texts_of(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", []):
        if _takes_text(parameter["schema"], document):
            yield parameter["in"], parameter["name"]
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        schema = _resolved(content["application/json"]["schema"], document)
        for name, field in schema.get("properties", {}).items():
            if name not in FREE_TEXT and _takes_text(field, document):
                yield "body", name


def _takes_text(schema: dict[str, Any], document: dict[str, Any]) -> bool:
    schema = _resolved(schema, document)
    if schema.get("type") == "string":
        return "enum" not in schema and "const" not in schema
    if schema.get("type") == "array":
        return _takes_text(schema.get("items", {}), document)
    return any(_takes_text(each, document) for key in ("anyOf", "oneOf") for each in schema.get(key, []))


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
    return schema
