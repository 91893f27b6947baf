"""The OpenAPI document: the one that FastAPI derives from the routes, completed with what holds for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from sienn_ray.access.principals import Scope
from sienn_ray.api.http.error_shapes import Fault
from sienn_ray.api.http.statuses import example_of, meaning_of
from sienn_ray.api.http.upper_bounds import say_bounds
from sienn_ray.api.openapi.links import links_of
from sienn_ray.api.openapi.security import SCHEMES, add_security
from sienn_ray.api.schemas.common import ErrorResponse, OAuthErrorResponse
from sienn_ray.api.schemas.openai_answers import OpenAiErrorResponse
from sienn_ray.settings import Settings

Json = dict[str, Any]

OPENAI_TAG = "OpenAI API"
TAGS = [
    {"name": "Health & Metrics", "description": "Whether the service and what is behind it work, and its numbers."},
    {"name": "Access", "description": "API keys, for admins; tokens and sessions for keys; and who the caller is."},
    {"name": "Datasets", "description": "Upload files of examples, look at them, and delete them."},
    {"name": "Training Jobs", "description": "Start LoRA fine-tunes, watch them, and end or repeat them."},
    {"name": "Live Updates", "description": "Server-sent events; the same come over WebSockets (docs/api.md)."},
    {"name": "Inference", "description": "Ask a fine-tuned model."},
    {"name": "Model Export", "description": "Take a fine-tuned model home."},
    {"name": "Webhooks", "description": "Be told of what happens to jobs and exports by a signed POST."},
    {"name": "Models", "description": "Base models that can be fine-tuned."},
    {
        "name": OPENAI_TAG,
        "description": "Ask base models and adapters with any client of the OpenAI API. Errors have that API's shape.",
    },
]
DESCRIPTION = """\
LoRA fine-tuning of language models as a service, on Ray: upload a dataset, fine-tune a base model, ask the adapter,
take it home.

Every error is `{"detail": "<what, limit, way out>", "status_code": <the HTTP status>}`, or under /v1 what clients of
the OpenAI API read. Every response has an `X-Request-ID`, which the server's log names beside whatever went wrong.
Times are UTC, ISO 8601 with milliseconds.
"""
_EXAMPLE_FILE = """\
instruction,response
"What is Python?","Python is a high-level programming language..."
"Explain LoRA","LoRA (Low-Rank Adaptation) is a technique..."
"""
_SCHEMAS = "#/components/schemas/"
_ERROR_SCHEMA = {"$ref": f"{_SCHEMAS}ErrorResponse"}
_OAUTH_ERROR_SCHEMA = {"$ref": f"{_SCHEMAS}OAuthErrorResponse"}
_OPENAI_ERROR_SCHEMA = {"$ref": f"{_SCHEMAS}OpenAiErrorResponse"}
_HEADERS: Json = {
    "RequestId": {
        "description": "Id of this request; the server's log names it beside whatever went wrong.",
        "required": True,
        "schema": {"type": "string", "examples": ["1a2b3c4d5e6f40718293a4b5c6d7e8f9"]},
    },
    "RetryAfter": {
        "description": "Seconds after which another try makes sense.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0, "examples": [5]},
    },
}


class DocumentedApi(FastAPI):
    """An application whose OpenAPI document has all that a client can rely on."""

    # Whether requests need an API key, and by operation id the scopes of which it has to have one.
    is_auth_on = False
    scopes: Mapping[str, tuple[Scope, ...]] = MappingProxyType({})
    # Where some bounds come from; without them, what nobody has raised.
    settings: Settings | None = None
    _document: Json | None = None

    def openapi(self) -> Json:
        """The document, built at the first call."""
        if self._document is None:
            document = _named_by_titles(super().openapi())
            for operation in operations_of(document):
                if scopes := self.scopes.get(operation["operationId"]):
                    add_security(operation, scopes, is_required=self.is_auth_on)
            if self.settings is not None:
                say_bounds(document, self.settings)
            self._document = _completed(document)
        return self._document


def operation_id(route: APIRoute) -> str:
    """A route's operation id is its function's name, so that generated clients read well and stay as they are."""
    return route.name


def operations_of(document: Json) -> Iterator[Json]:
    """All operations of a document."""
    for path in document["paths"].values():
        for method, operation in path.items():
            if method in {"get", "put", "post", "delete", "patch"}:
                yield operation


def _named_by_titles(document: Json) -> Json:
    """Name each schema by its title, so that names are as public as they are meant to be: no module's path, no class.

    Raises:
        ValueError: Two schemas have one title.
    """
    schemas: Json = document.get("components", {}).get("schemas", {})
    titles = {name: str(schema.get("title", name)) for name, schema in schemas.items()}
    twins = [name for name, title in titles.items() if list(titles.values()).count(title) > 1]
    if twins:
        raise ValueError(f"schemas with one title: {', '.join(twins)}; rename a class, or give it a title of its own")
    renamed: Json = _with_references(document, {f"{_SCHEMAS}{name}": f"{_SCHEMAS}{titles[name]}" for name in titles})
    if schemas:
        by_title = {titles[name]: schema for name, schema in renamed["components"]["schemas"].items()}
        renamed["components"]["schemas"] = dict(sorted(by_title.items()))
    return renamed


def _with_references(part: Any, new_names: Mapping[str, str]) -> Any:
    if isinstance(part, list):
        return [_with_references(inner, new_names) for inner in part]
    if isinstance(part, dict):
        inner = {key: _with_references(value, new_names) for key, value in part.items()}
        return {**inner, "$ref": new_names[part["$ref"]]} if part.get("$ref") in new_names else inner
    return part


def _completed(document: Json) -> Json:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape of a 422
        schemas.pop(name, None)
    _drop_inline_enums(document)
    for body in (ErrorResponse, OAuthErrorResponse, OpenAiErrorResponse):
        schema = body.model_json_schema(mode="serialization", ref_template=_SCHEMAS + "{model}")
        schemas.update({**schema.pop("$defs", {}), body.__name__: schema})
    components["headers"] = _HEADERS
    components["securitySchemes"] = SCHEMES
    ids = {operation["operationId"] for operation in operations_of(document)}
    for operation in operations_of(document):
        _complete_operation(operation)
        for status, links in links_of(operation["operationId"], ids).items():
            operation["responses"][status]["links"] = links
    return document


def _drop_inline_enums(document: Json) -> None:
    """Drop the schemas that FastAPI adds for enums, though each field has the values (`schemas.common.Inline`)."""
    schemas: Json = document["components"]["schemas"]
    text = json.dumps(document)
    for name in [name for name, schema in schemas.items() if "enum" in schema]:
        if f'"#/components/schemas/{name}"' not in text:
            del schemas[name]


def _complete_operation(operation: Json) -> None:
    responses: Json = operation["responses"]
    possible = {"500"}
    is_openai = OPENAI_TAG in operation["tags"]
    accepted = operation.get("requestBody", {}).get("content", {})
    is_oauth = "application/x-www-form-urlencoded" in accepted
    if "application/json" in accepted:
        possible |= {"413", "415", "400" if is_openai else "422"}
    if "multipart/form-data" in accepted:
        _complete_upload(accepted["multipart/form-data"])
    if is_openai or is_oauth or not _takes_more_than_ids(operation):
        responses.pop("422", None)
    for status in possible:
        responses.setdefault(status, {})
    for status, response in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST:
            _complete_error(int(status), response, is_openai=is_openai, is_oauth=is_oauth)
        response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}
    operation["responses"] = dict(sorted(responses.items()))


def _complete_upload(content: Json) -> None:
    """Show an example of an uploaded file, and that its name counts."""
    content["schema"]["properties"]["file"].setdefault("examples", [_EXAMPLE_FILE])
    disposition = {
        "description": "The file's name ends with .csv, .json, .jsonl or .txt.",
        "schema": {"type": "string"},
    }
    example = 'form-data; name="file"; filename="conversations.csv"'
    content["encoding"] = {"file": {"headers": {"Content-Disposition": {**disposition, "example": example}}}}


def _takes_more_than_ids(operation: Json) -> bool:
    """Whether anything can be invalid: a path may be any text, and an id that can't be one is not found."""
    parameters = operation.get("parameters", [])
    return "requestBody" in operation or any(parameter["in"] != "path" for parameter in parameters)


def _complete_error(status: int, response: Json, *, is_openai: bool, is_oauth: bool) -> None:
    # FastAPI's words for a 422 of its own are no more than the status' name.
    if response.get("description", "Validation Error") == "Validation Error":
        response["description"] = meaning_of(status)
    schema = _OPENAI_ERROR_SCHEMA if is_openai else _OAUTH_ERROR_SCHEMA if is_oauth else _ERROR_SCHEMA
    example = Fault(status, example_of(status)).as_json(is_openai=is_openai, is_oauth=is_oauth)
    response["content"] = {"application/json": {"schema": schema, "example": example}}
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        response.setdefault("headers", {})["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
