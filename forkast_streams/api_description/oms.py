"""The routes of the OMS."""

from __future__ import annotations

from forkast_streams.api_description import orders
from forkast_streams.api_description.answers import ApiKeyList, ApiKeyMade, ApiKeyRevoked
from forkast_streams.api_description.process import DESCRIPTION_ROUTES, HEALTH_ROUTES
from forkast_streams.api_description.routes import (
    BODY_ERRORS,
    Answer,
    Codes,
    Parameter,
    Route,
    merged,
)
from forkast_streams.api_keys import MakeKey

_KEYS = "API keys"
_NOT_FOUND: dict[int, Codes] = {404: ("NOT_FOUND",)}

_KEY_ROUTES = (
    Route(
        "POST",
        "/api-keys",
        "makeApiKey",
        "Make an API key",
        _KEYS,
        (Answer(201, "The key; its secret is told only here.", ApiKeyMade),),
        errors=merged(BODY_ERRORS, {409: ("TOO_MANY_API_KEYS",)}),
        body=MakeKey,
        example={"name": "market maker", "scopes": ["read", "trade"]},
        credentials="password",
    ),
    Route(
        "GET",
        "/api-keys",
        "listApiKeys",
        "The user's API keys",
        _KEYS,
        (Answer(200, "The keys, without secrets.", ApiKeyList),),
        credentials="password",
    ),
    Route(
        "DELETE",
        "/api-keys/{id}",
        "revokeApiKey",
        "Revoke an API key",
        _KEYS,
        (Answer(200, "The key is refused from now on.", ApiKeyRevoked),),
        errors=_NOT_FOUND,
        parameters=(Parameter("id", "path", {"type": "string", "pattern": "^[0-9a-f]{24}$"}, "The key's id."),),
        credentials="password",
    ),
)

ROUTES = (*orders.ROUTES, *_KEY_ROUTES, *HEALTH_ROUTES, *DESCRIPTION_ROUTES)
