"""Who sends a request: HTTP Basic, or an API key as it is or as a signature; on every route but those of the process.

The order on the way in: the address's rate limit, the credential, its scopes, the user's rate limit.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import time
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from forkast_streams.api_description.process import DESCRIPTION_PATHS
from forkast_streams.api_keys import ApiKey, ApiKeys, is_key_id
from forkast_streams.auth import MANAGE_KEYS, READ, TRADE, Authenticator, User
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import LARGEST_BODY_BYTES_MAX, WEB_STATEMENT_S_MAX
from forkast_streams.rate_limits import Bucket, Limit, RateLimits
from forkast_streams.roles import ExchangeApp
from forkast_streams.signatures import is_timely
from forkast_streams.storage.postgres import Postgres
from forkast_streams.storage.redis import connect
from web.answers import STANDING_HEADERS
from web.bodies import read_body
from web.errors import Handler
from web.rate_limits import RequestLimits, add_rate_headers, rate_header_lines
from web.request_state import note
from web.used_signatures import SharedUsedSignatures

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/health", "/ready"})
KEYS_PATH = "/api-keys"
_USER = web.RequestKey("user", User)
_API_KEYS = web.AppKey("api_keys", ApiKeys)
_NO_KEY_ID = "(no key id)"
_CREDENTIALS_CHARS_MAX = 1_024
_LOGGED_CHARS_MAX = 200
_LOGGED_LINES = Limit("log", rate=5, size=100)
_SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why nobody was let in; the client is not told.

    Attributes:
        name: the e-mail or the id of the key that was given.
        reason: for the log.
    """

    name: str
    reason: str


class Authentication:
    """An aiohttp middleware that knows the user of a request before its handler runs."""

    def __init__(
        self,
        authenticator: Authenticator,
        api_keys: ApiKeys,
        used_signatures: SharedUsedSignatures,
        limits: RequestLimits,
    ) -> None:
        self._authenticator = authenticator
        self._api_keys = api_keys
        self._used_signatures = used_signatures
        self._limits = limits
        self._log = _RefusalLog()
        # Apart, so that requests without credentials, which cost nothing, leave room for those that guess.
        self._log_of_missing = _RefusalLog()

    def middleware(self) -> Middleware:
        """The middleware."""

        @web.middleware
        async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in OPEN_PATHS:
                return await handler(request)
            address = self._limits.address_of(request)
            self._limits.charge_address(request, address)
            # By the route that was found, not by the path: no two readings of a path can differ then.
            resource = request.match_info.route.resource
            if resource is None or resource.canonical not in DESCRIPTION_PATHS:
                user = await self._user(request, address)
                self._limits.charge_user(request, user.id)
                self._require_scope(request, user, address)
                note(request, _USER, user)
            return await handler(request)

        return authenticate

    async def still_lets_in(self, request: web.Request) -> bool:
        """Whether the credential of a request that lasts is still good.

        For as long as that cannot be told, with Postgres away or too many passwords being checked, it counts as good,
        also when it would no longer let in a new request.
        """
        key = request.headers.get("X-API-Key")
        try:
            if key is not None:
                return await self._api_keys.find(key[:_CREDENTIALS_CHARS_MAX].partition(".")[0]) is not None
            credentials = _credentials(request.headers.get("Authorization", ""))
            return credentials is not None and await self._authenticator.authenticate(*credentials) is not None
        except (ApiError, Unavailable):
            return True

    async def _user(self, request: web.Request, address: str) -> User:
        key = request.headers.get("X-API-Key")
        if key is None:
            answer = await self._by_password(request, address)
        else:
            answer = await self._by_key(request, key, address)
        if isinstance(answer, User):
            return answer
        self._limits.login_failed(address, answer.name)
        self._log.write("authentication failed", request, address, answer.name, answer.reason)
        raise _unauthorized()

    async def _by_password(self, request: web.Request, address: str) -> User | _Failure:
        header = request.headers.get("Authorization", "")
        recalled = self._authenticator.recall(header)
        if recalled is not None:
            return recalled
        credentials = _credentials(header)
        if credentials is None:
            # Nothing that could be tried, so nothing that could be guessed: it counts only as a request.
            self._log_of_missing.write(
                "authentication failed", request, address, "", "no credentials that could be read"
            )
            raise _unauthorized()
        email, password = credentials
        user = self._authenticator.known(email, password)
        if user is not None:
            self._authenticator.remember(header, email)
        elif self._authenticator.is_checking(email, password):
            # Many connections of one client begin at once; that tries no more than one of them does.
            self._limits.require_login_allowed(address, email)
            user = await self._authenticator.authenticate(email, password)
        else:
            with self._limits.login_under_way(address, email):
                user = await self._authenticator.authenticate(email, password)
        return _Failure(email, "unknown user or wrong password") if user is None else user

    async def _by_key(self, request: web.Request, header: str, address: str) -> User | _Failure:
        key_id, dot, secret = header[:_CREDENTIALS_CHARS_MAX].partition(".")
        if not is_key_id(key_id):
            # What stands there may be the secret, and names are logged.
            key_id = _NO_KEY_ID
        key = self._api_keys.known(key_id)
        if key is None:
            self._limits.require_login_allowed(address, key_id)
            key = await self._api_keys.find(key_id)
        if key is None:
            return _Failure(key_id, "unknown or revoked API key")
        if not dot:
            return await self._by_signature(request, key, key_id, address)
        if not key.has_secret(secret):
            # Looked at only now: whoever has the secret is let in however many others guess.
            self._limits.require_login_allowed(address, key_id)
            return _Failure(key_id, "wrong secret")
        return key.user

    async def _by_signature(self, request: web.Request, key: ApiKey, key_id: str, address: str) -> User | _Failure:
        timestamp, given = request.headers.get("X-Timestamp", ""), request.headers.get("X-Signature", "")
        untimely = _Failure(key_id, "signed too long ago, or in the future")
        if not self._is_timely(timestamp):
            return untimely
        # The id of a key is no secret, and not enough to have a body kept here.
        if not key.may_have_signed(given):
            self._limits.require_login_allowed(address, key_id)
            return _Failure(key_id, "no signature, or a key that cannot sign")
        body = await read_body(request, LARGEST_BODY_BYTES_MAX)
        if not key.has_signed(given, timestamp, request.method, request.raw_path, body):
            self._limits.require_login_allowed(address, key_id)
            return _Failure(key_id, "wrong signature")
        # A body can be held back for longer than a signature that was used is remembered.
        if not self._is_timely(timestamp):
            return untimely
        if request.method not in _SAFE_METHODS and not await self._used_signatures.is_first_use(given):
            return _Failure(key_id, "signature used before")
        return key.user

    def _is_timely(self, timestamp: str) -> bool:
        return is_timely(timestamp, int(time.time() * 1_000), self._used_signatures.window_ms)

    def _require_scope(self, request: web.Request, user: User, address: str) -> None:
        if request.path == KEYS_PATH or request.path.startswith(f"{KEYS_PATH}/"):
            needed, sentence = MANAGE_KEYS, "API keys are managed with the password, not with an API key"
        elif request.method in _SAFE_METHODS:
            needed, sentence = READ, "this API key has no scope to read"
        else:
            needed, sentence = TRADE, "this API key may only read"
        # Whoever may trade sees what became of it.
        if needed not in user.scopes and not (needed == READ and TRADE in user.scopes):
            self._log.write("not allowed", request, address, user.email, f"key {user.key_id} lacks {needed}")
            raise ApiError(403, "FORBIDDEN", sentence)


_AUTHENTICATION = web.AppKey("authentication", Authentication)


class _RefusalLog:
    """One line for each refusal, but not a line for each request of a flood."""

    def __init__(self) -> None:
        self._lines = Bucket(_LOGGED_LINES, time.monotonic())
        self._left_out = 0

    def write(self, what: str, request: web.Request, address: str, name: str, reason: str) -> None:
        """Log who was refused what, from where and why.

        Args:
            what: kind of refusal.
            request: refused.
            address: where it came from.
            name: the e-mail or key id that was given, never a secret.
            reason: in our words.
        """
        self._lines.refill(time.monotonic())
        if self._lines.tokens < 1:
            self._left_out += 1
            return
        self._lines.tokens -= 1
        resource = request.match_info.route.resource
        route = f"{request.method} {'none' if resource is None else resource.canonical}"
        # As JSON text a name is one line of ASCII, whatever was sent.
        shown = json.dumps(name[:_LOGGED_CHARS_MAX])
        left_out, self._left_out = self._left_out, 0
        log.warning(
            "%s: user=%s address=%s route=%s reason=%s left_out=%d", what, shown, address, route, reason, left_out
        )


async def still_lets_in(request: web.Request) -> bool:
    """Whether the credential of a request that lasts, such as a stream, is still good."""
    return await request.app[_AUTHENTICATION].still_lets_in(request)


def user_of(request: web.Request) -> User:
    """The authenticated user of ``request``, with the scopes of the credential."""
    return request[_USER]


def api_keys_of(app: ExchangeApp) -> ApiKeys:
    """The API keys that requests to ``app`` are checked against."""
    api_keys: ApiKeys = app.web.web_app[_API_KEYS]
    return api_keys


def _credentials(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _CREDENTIALS_CHARS_MAX:
        return None
    try:
        email, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if not colon or not email or not password or "\0" in email:
        return None
    return email, password


def _unauthorized() -> ApiError:
    return ApiError(
        401,
        "UNAUTHORIZED",
        "this route needs HTTP Basic credentials of a user, or an API key",
        headers={"WWW-Authenticate": 'Basic realm="forkast", charset="UTF-8"'},
    )


def register(app: ExchangeApp) -> None:
    """Authenticate all requests to ``app``, and limit their rates."""
    settings = app.settings
    postgres = Postgres(settings.database_url, timeout_s=WEB_STATEMENT_S_MAX)
    rates = RateLimits(connect(settings.redis_url))
    app.run_service(postgres)
    app.run_service(rates)

    async def find_user(email: str) -> dict[str, object] | None:
        rows = await postgres.query("user_by_email", email=email)
        return rows[0] if rows else None

    authenticator = Authenticator(find_user, demo_users=settings.demo_users)
    api_keys = ApiKeys(postgres, settings.signing_secret)
    used_signatures = SharedUsedSignatures(connect(settings.redis_url), settings.signature_window_ms)
    limits = RequestLimits(rates, settings.rates, behind_proxy=settings.behind_tls_proxy)
    web_app = app.web.web_app
    web_app[_API_KEYS] = api_keys
    authentication = web_app[_AUTHENTICATION] = Authentication(authenticator, api_keys, used_signatures, limits)
    web_app.middlewares.append(authentication.middleware())
    web_app.on_response_prepare.append(add_rate_headers)

    async def tell_rates(_: web.Application) -> None:
        web_app[STANDING_HEADERS].vary(rate_header_lines)

    # When the headers are there, whichever module was registered first.
    web_app.on_startup.append(tell_rates)

    async def close(_: web.Application) -> None:
        authenticator.close()
        api_keys.close()
        await used_signatures.close()

    web_app.on_cleanup.append(close)
