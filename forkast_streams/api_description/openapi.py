"""OpenAPI 3.1 of a role, put together from its routes and the types of their bodies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from forkast_streams.api_description.answers import ErrorDetail
from forkast_streams.api_description.fields import NUMBER, JsonSchema, refine
from forkast_streams.api_description.routes import IDEMPOTENT_REPLAY, JSON, Answer, Codes, Parameter, Route
from forkast_streams.limits import COMMAND_LATE_S_MAX

_REF = "#/components/schemas/{name}"
_DESCRIPTION = """An open exchange on Kafka, Postgres and Redis.

Errors have one format, `{"error":{"code","message","field"?,"orderId"?}}`; each route lists its codes by status.
Prices and quantities are exact: send them as JSON numbers or as decimal strings. The topics and streams are described
in [/asyncapi.json](/asyncapi.json).
"""
_SECURITY_SCHEMES = {
    "basic": {"type": "http", "scheme": "basic", "description": "The user's e-mail and password."},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "`<id>.<secret>` of an API key; with a signature only `<id>`.",
    },
    "timestamp": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Timestamp",
        "description": "With a signature: when the request was signed, in milliseconds since the epoch.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Signature",
        "description": "HMAC-SHA256 of time, method, path and body; see docs/api.md.",
    },
}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "none": [],
    "password": [{"basic": []}],
    "user": [{"basic": []}, {"apiKey": []}, {"apiKey": [], "timestamp": [], "signature": []}],
}
_HEADERS: dict[str, JsonSchema] = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    IDEMPOTENT_REPLAY: {
        "description": "There when an earlier request with the same `clientOrderId` has placed the order.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "RateLimit-Limit": {
        "description": "Requests that can be sent at once after a pause.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit-Remaining": {
        "description": "Requests that are left of them.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimit-Reset": {
        "description": "Seconds until all of them are back.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Allow": {"description": "The methods that the path has.", "schema": {"type": "string"}},
}
_ERROR_SENTENCES = {
    400: "The request is malformed, or breaks a rule.",
    401: "No credential, or a wrong one.",
    403: "The credential does not allow this.",
    404: "There is no such thing, or it is another user's.",
    408: "The body did not arrive in time.",
    409: "The state of things does not allow it.",
    413: "The body is too large.",
    415: "The body is not `application/json`, or it is compressed.",
    429: "Too many requests, or too many wrong credentials.",
    503: "Something is out of reach; try again. After `LOG_UNAVAILABLE` look first what became of the request: the "
    f"order of its `orderId` may come into the log for {COMMAND_LATE_S_MAX} s.",
}
_RST_CODE = re.compile(r"``([^`]*)``")


def openapi(title: str, version: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The document for ``routes``."""
    routes = tuple(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _DESCRIPTION, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": _SECURITY_SCHEMES,
            "headers": _HEADERS,
        },
    }


def schemas_of(answers: Iterable[type], requests: Iterable[type] = ()) -> dict[str, JsonSchema]:
    """The schemas of types and all they are made of, by name; those of requests with what their fields must be."""
    requests = tuple(requests)
    _, schemas = msgspec.json.schema_components([*answers, *requests], ref_template=_REF)
    if requests:
        schemas["Number"] = dict(NUMBER)
    for kind in requests:
        refine(kind.__name__, schemas[kind.__name__])
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = _RST_CODE.sub(r"`\1`", schema["description"])
    return schemas


def ref(kind: type) -> JsonSchema:
    """A reference to a type's schema."""
    return {"$ref": _REF.format(name=kind.__name__)}


def _schemas(routes: tuple[Route, ...]) -> dict[str, JsonSchema]:
    answers = {answer.body: None for route in routes for answer in route.answers if answer.body not in (None, dict)}
    requests = {route.body: None for route in routes if route.body is not None}
    return schemas_of([*filter(None, answers), ErrorDetail], filter(None, requests))


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "security": _SECURITY[route.credentials],
        "responses": _responses(route),
    }
    if route.description:
        operation["description"] = route.description
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.body is not None:
        media: dict[str, Any] = {"schema": ref(route.body)}
        if route.example is not None:
            media["example"] = route.example
        operation["requestBody"] = {"required": True, "content": {JSON: media}}
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    errors = route.all_errors()
    for answer in route.answers:
        content = _content(answer)
        if answer.status in errors and answer.body is not None:
            # One status for an answer of the route's own and for an error.
            schema = {"anyOf": [content[JSON]["schema"], _error_schema(errors.pop(answer.status))]}
            content = {JSON: {"schema": schema}}
        responses[str(answer.status)] = {
            "description": answer.description,
            "headers": _headers(answer.status, route, answer.headers),
            "content": content,
        } | _links(answer)
    for status, codes in errors.items():
        responses[str(status)] = {
            "description": _ERROR_SENTENCES[status],
            "headers": _headers(status, route),
            "content": {JSON: {"schema": _error_schema(codes)}},
        }
    return responses


def _content(answer: Answer) -> dict[str, Any]:
    if answer.body is None:
        return {answer.media: {"schema": {"type": "string"}}}
    return {answer.media: {"schema": {"type": "object"} if answer.body is dict else ref(answer.body)}}


def _links(answer: Answer) -> dict[str, Any]:
    parameters = {"id": "$response.body#/orderId"}
    links = {name: {"operationId": name, "parameters": parameters} for name in answer.links}
    return {"links": links} if links else {}


def _headers(status: int, route: Route, others: Iterable[str] = ()) -> dict[str, JsonSchema]:
    names = [*others, "Retry-After"] if status in (429, 503) else [*others]
    if route.credentials != "none":
        names += ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _error_schema(codes: Codes) -> JsonSchema:
    detail = {"allOf": [ref(ErrorDetail), {"properties": {"code": {"enum": list(codes)}}}]}
    return {"type": "object", "required": ["error"], "properties": {"error": detail}, "additionalProperties": False}
