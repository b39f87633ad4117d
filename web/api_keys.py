"""``POST /api-keys``, ``GET /api-keys`` and ``DELETE /api-keys/{id}``; only with the password."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from aiohttp import web

from forkast_streams.api_keys import ApiKeys, MakeKey
from forkast_streams.errors import ApiError
from forkast_streams.json_bodies import decode_body
from forkast_streams.roles import ExchangeApp
from web.auth import KEYS_PATH, api_keys_of, user_of
from web.bodies import read_json_body
from web.errors import json_response

_BODY_BYTES_MAX = 1_024
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


class ApiKeyViews:
    """The routes."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    async def make(self, request: web.Request) -> web.Response:
        """Make a key; this answer alone tells the secret."""
        body = _decoded(await read_json_body(request, _BODY_BYTES_MAX))
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
    made = decode_body(MakeKey, body)
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
