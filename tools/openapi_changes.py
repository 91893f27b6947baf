"""What has changed between two OpenAPI documents, and which of it breaks clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

_METHODS = ("get", "put", "post", "delete", "patch")
_LIMITS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)
_UPPER_LIMITS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


@dataclass
class Changes:
    """Sentences about what has changed.

    Attributes:
        breaking: What a client of the old document can't do or expect any more.
        additions: What is new and harms nobody.
        renames: Schemas with another name, which is seen in generated clients alone; no body has changed.
    """

    breaking: list[str] = field(default_factory=list)
    additions: list[str] = field(default_factory=list)
    renames: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Field:
    """One place in a body: its types, its allowed values (None: any), its limits, and whether it is always there."""

    types: frozenset[str]
    values: frozenset[str] | None
    limits: tuple[tuple[str, Any], ...]
    is_required: bool


def changes(old: Json, new: Json) -> Changes:
    """Compare two documents."""
    found = Changes()
    before, after = _operations(old), _operations(new)
    found.breaking += [f"{name} is gone" for name in before.keys() - after.keys()]
    found.additions += [f"{name} is new" for name in after.keys() - before.keys()]
    for name in sorted(before.keys() & after.keys()):
        _compare_operations(name, (before[name], old), (after[name], new), found)
    found.renames += _renames(old, new)
    return found


def _renames(old: Json, new: Json) -> Iterator[str]:
    before, after = old["components"]["schemas"], new["components"]["schemas"]
    for gone in sorted(before.keys() - after.keys()):
        same = [name for name in sorted(after.keys() - before.keys()) if _shape(before[gone]) == _shape(after[name])]
        if same:
            yield f"the schema {gone} is {same[0]} now"


def _shape(schema: Json) -> Json:
    return {key: value for key, value in schema.items() if key not in {"title", "description"}}


def _operations(document: Json) -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": path_item[method]
        for path, path_item in document["paths"].items()
        for method in _METHODS
        if method in path_item
    }


def _compare_operations(name: str, before: tuple[Json, Json], after: tuple[Json, Json], found: Changes) -> None:
    (old, old_document), (new, new_document) = before, after
    if old["operationId"] != new["operationId"]:
        found.breaking.append(f"{name}: the operation id {old['operationId']} is {new['operationId']} now")
    _compare_requests(name, _request(old, old_document), _request(new, new_document), found)
    for status in old["responses"].keys() - new["responses"].keys():
        found.breaking.append(f"{name}: status {status} is gone")
    for status in new["responses"].keys() - old["responses"].keys():
        found.additions.append(f"{name}: status {status} is new")
    for status in sorted(old["responses"].keys() & new["responses"].keys()):
        old_fields = _body(old["responses"][status], old_document)
        _compare_responses(f"{name} {status}", old_fields, _body(new["responses"][status], new_document), found)


def _request(operation: Json, document: Json) -> dict[str, _Field]:
    """Everything that can be sent: parameters as `query limit`, the body's fields as `application/json .name`."""
    parameters = {
        f"{parameter['in']} {parameter['name']}{at}": found
        for parameter in operation.get("parameters", [])
        for at, found in _fields(parameter["schema"], document, "", parameter.get("required", False))
    }
    return {**parameters, **_body(operation.get("requestBody", {}), document)}


def _body(holder: Json, document: Json) -> dict[str, _Field]:
    return {
        f"{media_type} {at}": found
        for media_type, content in holder.get("content", {}).items()
        for at, found in _fields(content.get("schema", {}), document, "", True)
    }


def _compare_requests(name: str, old: dict[str, _Field], new: dict[str, _Field], found: Changes) -> None:
    for at in sorted(old.keys() - new.keys()):
        found.breaking.append(f"{name}: {at} is not taken any more")
    for at in sorted(new.keys() - old.keys()):
        is_harmful = new[at].is_required and _parent(at) in {*old, at}
        (found.breaking if is_harmful else found.additions).append(f"{name}: {at} is new")
    for at in sorted(old.keys() & new.keys()):
        before, after = old[at], new[at]
        if after.is_required and not before.is_required:
            found.breaking.append(f"{name}: {at} is required now")
        if before.types - after.types:
            found.breaking.append(f"{name}: {at} does not take {_listed(before.types - after.types)} any more")
        if after.values is not None and (before.values is None or before.values - after.values):
            found.breaking.append(f"{name}: {at} takes {_listed(after.values)} alone")
        found.breaking += [f"{name}: {at} has a narrower {limit}" for limit in _narrower(before, after)]


def _compare_responses(name: str, old: dict[str, _Field], new: dict[str, _Field], found: Changes) -> None:
    for at in sorted(old.keys() - new.keys()):
        found.breaking.append(f"{name}: {at} is gone")
    found.additions += [f"{name}: {at} is new" for at in sorted(new.keys() - old.keys())]
    for at in sorted(old.keys() & new.keys()):
        before, after = old[at], new[at]
        if before.is_required and not after.is_required:
            found.breaking.append(f"{name}: {at} may be missing now")
        if after.types - before.types:
            found.breaking.append(f"{name}: {at} may be {_listed(after.types - before.types)} now")
        if before.values is not None and after.values is not None and after.values - before.values:
            found.additions.append(f"{name}: {at} may be {_listed(after.values - before.values)} now")


def _parent(at: str) -> str:
    """The place that holds this one; a place that holds none, such as a parameter, is its own."""
    head, dot, _ = at.rpartition(".")
    return head if dot else at


def _narrower(before: _Field, after: _Field) -> Iterator[str]:
    old, new = dict(before.limits), dict(after.limits)
    for limit in _LIMITS:
        if limit not in new:
            continue
        if limit not in old or (new[limit] < old[limit] if limit in _UPPER_LIMITS else new[limit] > old[limit]):
            yield limit
    if new.get("pattern") not in {None, old.get("pattern")}:
        yield "pattern"


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _fields(schema: Json, document: Json, at: str, is_required: bool, depth: int = 0) -> Iterator[tuple[str, _Field]]:
    """All places of a body with what they may hold: `.jobs[].status`; depth ends what refers to itself."""
    branches = list(_branches(schema, document))
    values = [_values_of(branch) for branch in branches]
    yield (
        at,
        _Field(
            types=frozenset(kind for branch in branches for kind in _types_of(branch)),
            values=None
            if any(each is None for each in values)
            else frozenset().union(*(each or [] for each in values)),
            limits=tuple((name, b[name]) for b in branches for name in (*_LIMITS, "pattern") if name in b),
            is_required=is_required,
        ),
    )
    if depth > 8:
        return
    for branch in branches:
        for name, inner in branch.get("properties", {}).items():
            yield from _fields(inner, document, f"{at}.{name}", name in branch.get("required", []), depth + 1)
        for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(branch.get(key), dict):
                yield from _fields(branch[key], document, at + mark, False, depth + 1)


def _branches(schema: Json, document: Json) -> Iterator[Json]:
    """A schema's alternatives, with references resolved."""
    if "$ref" in schema:
        yield from _branches(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]], document)
    elif alternatives := [inner for key in ("anyOf", "oneOf", "allOf") for inner in schema.get(key, [])]:
        for alternative in alternatives:
            yield from _branches(alternative, document)
    else:
        yield schema


def _types_of(schema: Json) -> list[str]:
    kinds = schema.get("type", "any")
    return kinds if isinstance(kinds, list) else [kinds]


def _values_of(schema: Json) -> frozenset[str] | None:
    if "const" in schema:
        return frozenset({repr(schema["const"])})
    if schema.get("type") == "null":
        return frozenset({"None"})
    return frozenset(map(repr, schema["enum"])) if "enum" in schema else None
