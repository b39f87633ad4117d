"""Checks e-mail and password against the users' bcrypt hashes.

A check costs milliseconds of processor time by design, so it runs in a few threads beside the event loop, what waits
for them is bounded, and a checked credential is remembered for a while: under a keyed hash, never as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import bcrypt

from forkast_streams.errors import ApiError

REMEMBERED_S_MAX = 60.0
# bcrypt reads no more than this; a longer password would match any other with the same beginning.
PASSWORD_BYTES_MAX = 72
_REMEMBERED_MAX = 10_000
_THREADS = 2
_WAITING_MAX = 64
# Checked for unknown users, so that they take as long as known ones. Its cost is that of the stored hashes.
_DUMMY_HASH = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(6))


@dataclass(frozen=True, slots=True)
class User:
    """Who sent a request."""

    id: int
    email: str


FindUser = Callable[[str], Awaitable[dict[str, Any] | None]]


class Authenticator:
    """Tells who a pair of e-mail and password is.

    Args:
        find_user: looks a user up by exact e-mail: ``id``, ``email`` and ``password`` (the bcrypt hash), or None.
    """

    def __init__(self, find_user: FindUser) -> None:
        self._find_user = find_user
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, tuple[float, User]] = OrderedDict()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="bcrypt")
        self._waiting = 0

    async def authenticate(self, email: str, password: str) -> User | None:
        """Return the user, or None when there is no such user or the password is another.

        Raises:
            Unavailable: the users are out of reach and the credential is not remembered.
            ApiError: too many checks are waiting.
        """
        digest = hmac.digest(self._secret, f"{email}\0{password}".encode(), hashlib.sha256)
        known = self._remembered.get(digest)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        if self._waiting >= _WAITING_MAX:
            raise ApiError(
                429, "TOO_MANY_LOGINS", "too many passwords are being checked; try again", headers={"Retry-After": "1"}
            )
        self._waiting += 1
        try:
            row = await self._find_user(email)
            stored = _DUMMY_HASH if row is None else str(row["password"]).encode()
            raw = password.encode()
            matches = await asyncio.get_running_loop().run_in_executor(self._pool, _matches, raw, stored)
        finally:
            self._waiting -= 1
        if row is None or not matches:
            self._remembered.pop(digest, None)
            return None
        user = User(row["id"], row["email"])
        self._remember(digest, user)
        return user

    def _remember(self, digest: bytes, user: User) -> None:
        self._remembered[digest] = (time.monotonic() + REMEMBERED_S_MAX, user)
        self._remembered.move_to_end(digest)
        while len(self._remembered) > _REMEMBERED_MAX:
            self._remembered.popitem(last=False)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _matches(password: bytes, stored: bytes) -> bool:
    try:
        right = bcrypt.checkpw(password[:PASSWORD_BYTES_MAX], stored)
    except ValueError:
        # The stored text is no bcrypt hash: nobody can log in with it.
        return False
    return right and len(password) <= PASSWORD_BYTES_MAX
