"""HTTP Basic authentication of every route that is not about the process itself."""

from __future__ import annotations

import base64
import binascii

from aiohttp import web
from aiohttp.typedefs import Middleware

from forkast_streams.auth import Authenticator, User
from forkast_streams.errors import ApiError
from forkast_streams.roles import ExchangeApp
from forkast_streams.storage.postgres import Postgres
from web.errors import Handler

OPEN_PATHS = frozenset({"/health", "/ready"})
_USER = web.RequestKey("user", User)
_CREDENTIALS_CHARS_MAX = 1_024


class BasicAuthentication:
    """An aiohttp middleware that knows the user of a request before its handler runs."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def middleware(self) -> Middleware:
        """The middleware."""

        @web.middleware
        async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path not in OPEN_PATHS:
                email, password = _credentials(request.headers.get("Authorization", ""))
                user = await self._authenticator.authenticate(email, password)
                if user is None:
                    raise _unauthorized()
                request[_USER] = user
            return await handler(request)

        return authenticate


def user_of(request: web.Request) -> User:
    """The authenticated user of ``request``."""
    return request[_USER]


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _CREDENTIALS_CHARS_MAX:
        raise _unauthorized()
    try:
        email, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise _unauthorized() from None
    if not colon or not email or not password or "\0" in email:
        raise _unauthorized()
    return email, password


def _unauthorized() -> ApiError:
    return ApiError(
        401,
        "UNAUTHORIZED",
        "this route needs HTTP Basic credentials of a user",
        headers={"WWW-Authenticate": 'Basic realm="forkast", charset="UTF-8"'},
    )


def register(app: ExchangeApp) -> None:
    """Authenticate all requests to ``app``."""
    postgres = Postgres(app.settings.database_url)

    async def find_user(email: str) -> dict[str, object] | None:
        rows = await postgres.query("user_by_email", email=email)
        return rows[0] if rows else None

    authenticator = Authenticator(find_user)
    app.run_service(postgres)
    app.web.web_app.middlewares.append(BasicAuthentication(authenticator).middleware())

    async def close(_: web.Application) -> None:
        authenticator.close()

    app.web.web_app.on_cleanup.append(close)
