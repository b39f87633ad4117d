"""API keys: a random secret each, which the exchange can check but not tell.

The secret has 256 random bits, so its SHA-256 is all that has to be stored: there is nothing to guess that a slow
hash would protect, and a fast one keeps a request at microseconds. To check signatures the key that the client signs
with is needed, too; it is stored sealed under a secret of the processes' environment.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from forkast_streams.auth import READ, TRADE, User
from forkast_streams.errors import ApiError
from forkast_streams.limits import API_KEYS_MAX, STALE_S_MAX
from forkast_streams.signatures import is_signature, sealed, signature, signing_key
from forkast_streams.stale_cache import StaleCache
from forkast_streams.storage.postgres import Postgres

log = logging.getLogger(__name__)

SCOPES = frozenset({READ, TRADE})
# Seconds until a revoked key is refused by the other processes, and until one in use is looked up beside requests.
REMEMBERED_S_MAX = 50.0
_REFRESH_S = 20.0
_ID = re.compile(r"[0-9a-f]{24}", re.ASCII)
_ID_BYTES, _SECRET_BYTES = 12, 32


class MakeKey(Struct, forbid_unknown_fields=True):
    """Body of ``POST /api-keys``."""

    name: Annotated[str, Meta(extra_json_schema={"pattern": "^[^\\x00-\\x1f\\x7f]{1,64}$"})]
    scopes: Annotated[list[Literal["read", "trade"]], Meta(extra_json_schema={"minItems": 1})]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that is not revoked.

    Attributes:
        user: its owner, with the key's scopes.
        secret_hash: SHA-256 of the secret.
        signing_key: None when requests can not be signed with it.
    """

    user: User
    secret_hash: bytes
    signing_key: bytes | None

    def has_secret(self, secret: str) -> bool:
        """Whether this is the key's secret."""
        return hmac.compare_digest(_hash_of(secret), self.secret_hash)

    def may_have_signed(self, given: str) -> bool:
        """Whether ``given`` can be a signature of this key, of whichever request."""
        return self.signing_key is not None and is_signature(given)

    def has_signed(self, given: str, timestamp: str, method: str, path: str, body: bytes) -> bool:
        """Whether ``given`` is the signature of this request."""
        if self.signing_key is None or not self.may_have_signed(given):
            return False
        return hmac.compare_digest(signature(self.signing_key, timestamp, method, path, body), given)


class ApiKeys:
    """The keys of the database.

    Args:
        postgres: where they are.
        sealing_secret: seals the signing keys; empty: keys made now can not sign, and none is taken as signed.
    """

    def __init__(self, postgres: Postgres, sealing_secret: str) -> None:
        self._postgres = postgres
        self._sealing_secret = sealing_secret
        self._keys: StaleCache[str, ApiKey] = StaleCache(
            self._load, refresh_s=_REFRESH_S, fresh_s=REMEMBERED_S_MAX, stale_s=STALE_S_MAX
        )

    def known(self, key_id: str) -> ApiKey | None:
        """A key that was read lately; never waits."""
        return self._keys.peek(key_id)

    async def find(self, key_id: str) -> ApiKey | None:
        """A key, None when there is none or it is revoked.

        Raises:
            Unavailable: the database is out of reach and the key is not remembered.
        """
        return await self._keys.get(key_id) if is_key_id(key_id) else None

    async def create(self, user: User, name: str, scopes: Iterable[str]) -> tuple[dict[str, Any], str]:
        """Make a key; return its row and its secret, which can not be told again.

        Raises:
            ApiError: 409, the user has ``API_KEYS_MAX`` keys.
            Unavailable: the database is out of reach.
        """
        key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        stored_key = sealed(signing_key(secret), key_id, self._sealing_secret) if self._sealing_secret else None
        rows = await self._postgres.query(
            "create_api_key",
            id=key_id,
            user_id=user.id,
            label=name,
            scopes=sorted(scopes),
            secret_hash=_hash_of(secret),
            signing_key=stored_key,
            most=API_KEYS_MAX,
        )
        if not rows:
            raise ApiError(409, "TOO_MANY_API_KEYS", f"you have {API_KEYS_MAX} API keys; delete one first")
        log.info("api key %s of user %d was made", key_id, user.id)
        return rows[0], secret

    async def of_user(self, user: User) -> list[dict[str, Any]]:
        """The rows of a user's keys that are not revoked, newest first.

        Raises:
            Unavailable: the database is out of reach.
        """
        return await self._postgres.query("api_keys_of_user", user_id=user.id)

    async def revoke(self, user: User, key_id: str) -> bool:
        """End a key of ``user``; False when there is none with this id. This process refuses it at once.

        Raises:
            Unavailable: the database is out of reach.
        """
        if not is_key_id(key_id):
            return False
        rows = await self._postgres.query("revoke_api_key", id=key_id, user_id=user.id)
        if rows:
            self._keys.forget(key_id)
            log.info("api key %s of user %d was revoked", key_id, user.id)
        return bool(rows)

    def close(self) -> None:
        """Stop reading."""
        self._keys.close()

    async def _load(self, key_id: str) -> ApiKey | None:
        rows = await self._postgres.query("api_key_by_id", id=key_id)
        if not rows:
            return None
        row = rows[0]
        user = User(row["userId"], row["email"], frozenset(row["scopes"]) & SCOPES, key_id)
        stored_key = None if row["signingKey"] is None else bytes(row["signingKey"])
        can_sign = stored_key is not None and self._sealing_secret
        key = sealed(stored_key, key_id, self._sealing_secret) if can_sign and stored_key is not None else None
        return ApiKey(user, bytes(row["secretHash"]), key)


def is_key_id(text: str) -> bool:
    """Whether ``text`` has the form of a key's id."""
    return _ID.fullmatch(text) is not None


def _hash_of(secret: str) -> bytes:
    # Bytes of a header that are no UTF-8 stand there as surrogates.
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()
