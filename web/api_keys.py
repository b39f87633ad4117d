"""``POST /api-keys``, ``GET /api-keys`` and ``DELETE /api-keys/{id}``; only with the password."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from forkast_streams.api_keys import ApiKeys
from forkast_streams.errors import ApiError
from forkast_streams.roles import ExchangeApp
from web.auth import KEYS_PATH, api_keys_of, user_of
from web.bodies import read_body
from web.errors import json_response

_BODY_BYTES_MAX = 1_024
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


class MakeKey(Struct, forbid_unknown_fields=True):
    """Body of ``POST /api-keys``."""

    name: str
    scopes: list[Literal["read", "trade"]]


_decoder = msgspec.json.Decoder(MakeKey)


class ApiKeyViews:
    """The routes."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    async def make(self, request: web.Request) -> web.Response:
        """Make a key; this answer alone tells the secret."""
        if request.content_type != "application/json":
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be sent as Content-Type: application/json")
        body = _decoded(await read_body(request, _BODY_BYTES_MAX))
        row, secret = await self._api_keys.create(user_of(request), body.name, set(body.scopes))
        return json_response(_view(row) | {"secret": secret}, status=201)

    async def list(self, request: web.Request) -> web.Response:
        """The user's keys, without secrets."""
        rows = await self._api_keys.of_user(user_of(request))
        return json_response({"apiKeys": [_view(row) for row in rows]})

    async def revoke(self, request: web.Request) -> web.Response:
        """End a key; another user's is answered as an unknown one."""
        if not await self._api_keys.revoke(user_of(request), request.match_info["id"]):
            raise ApiError(404, "NOT_FOUND", "you have no API key with this id")
        return json_response({"id": request.match_info["id"], "status": "REVOKED"})


def _decoded(body: bytes) -> MakeKey:
    try:
        made = _decoder.decode(body)
    except msgspec.ValidationError:
        message = 'the body must be {"name": text, "scopes": ["read"] or ["read", "trade"] or ["trade"]}'
        raise ApiError(400, "INVALID_VALUE", message) from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ApiError(400, "INVALID_JSON", "the body must be one JSON object in UTF-8") from None
    if not _NAME.fullmatch(made.name):
        raise ApiError(400, "INVALID_VALUE", "name must have 1 to 64 characters, no control characters", field="name")
    if not made.scopes:
        raise ApiError(400, "INVALID_VALUE", "scopes must name at least one scope", field="scopes")
    return made


def _view(row: dict[str, Any]) -> dict[str, Any]:
    created: datetime = row["createdAt"]
    return row | {"createdAt": f"{created.isoformat(timespec='milliseconds')}Z"}


def register(app: ExchangeApp) -> None:
    """Add the routes."""
    views = ApiKeyViews(api_keys_of(app))
    router = app.web.web_app.router
    router.add_post(KEYS_PATH, views.make)
    router.add_get(KEYS_PATH, views.list)
    router.add_delete(f"{KEYS_PATH}/{{id:[^/]+}}", views.revoke)
