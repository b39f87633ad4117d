"""Checks e-mail and password against the users' bcrypt hashes.

A check costs milliseconds of processor time by design, so it runs in a few threads beside the event loop, what waits
for them is bounded, many requests with one credential wait for one check, and a checked credential is remembered:
under a keyed hash, never as it is, and together with the bcrypt hash it matched, so that a changed password ends it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import bcrypt

from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import STALE_S_MAX
from forkast_streams.stale_cache import StaleCache

# Seconds until a changed or deleted user is refused, and until a user who sends requests is looked up beside them.
REMEMBERED_S_MAX = 50.0
_REFRESH_S = 25.0
# bcrypt reads no more than this; a longer password would match any other with the same beginning.
PASSWORD_BYTES_MAX = 72
_REMEMBERED_MAX = 10_000
_THREADS = 2
_WAITING_MAX = 64
_COST = re.compile(r"\$2[abxy]\$(\d\d)\$", re.ASCII)
_COST_DEFAULT, _COST_MAX = 6, 14

READ, TRADE, MANAGE_KEYS = "read", "trade", "keys"
ALL_SCOPES = frozenset({READ, TRADE, MANAGE_KEYS})


@dataclass(frozen=True, slots=True)
class User:
    """Who sent a request, and what the credential allows.

    Attributes:
        scopes: ``read`` for GET, ``trade`` for everything else, ``keys`` for API keys.
        key_id: the API key that was used, None for a password.
    """

    id: int
    email: str
    scopes: frozenset[str] = ALL_SCOPES
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    user: User
    hash: str


FindUser = Callable[[str], Awaitable[dict[str, Any] | None]]


class Authenticator:
    """Tells who a pair of e-mail and password is.

    Args:
        find_user: looks a user up by exact e-mail: ``id``, ``email`` and ``password`` (the bcrypt hash), or None.
        demo_users: whether a password that is the e-mail is good enough.
    """

    def __init__(self, find_user: FindUser, *, demo_users: bool = False) -> None:
        self._find_user = find_user
        self._demo_users = demo_users
        # Copied for each digest, which takes half as long as a new hash with the key.
        self._keyed_hash = hashlib.blake2b(key=secrets.token_bytes(32), digest_size=32)
        self._users: StaleCache[str, _Stored] = StaleCache(
            self._find, refresh_s=_REFRESH_S, fresh_s=REMEMBERED_S_MAX, stale_s=STALE_S_MAX, size_max=_REMEMBERED_MAX
        )
        self._matched: OrderedDict[bytes, None] = OrderedDict()
        # Of headers that were read lately, by a digest of the whole: the e-mail in it, and whom it stood for.
        self._recalled: OrderedDict[bytes, tuple[str, _Stored]] = OrderedDict()
        self._checks: dict[bytes, asyncio.Task[User | None]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="bcrypt")
        self._cost = _COST_DEFAULT

    def recall(self, header: str) -> User | None:
        """The user of a header that ``remember`` was told of, while what is known of the user is the same."""
        recalled = self._recalled.get(self._keyed(header))
        if recalled is None:
            return None
        email, stored = recalled
        return stored.user if self._users.peek(email) is stored else None

    def remember(self, header: str, email: str) -> None:
        """Remember that ``header`` is a credential for ``email`` that ``known`` has just found to be right."""
        stored = self._users.peek(email)
        if stored is not None:
            self._recalled[self._keyed(header)] = email, stored
            if len(self._recalled) > _REMEMBERED_MAX:
                self._recalled.popitem(last=False)

    def known(self, email: str, password: str) -> User | None:
        """The user if the credential was checked lately; never waits."""
        stored = self._users.peek(email)
        return stored.user if stored is not None and self._digest(email, password, stored) in self._matched else None

    def is_checking(self, email: str, password: str) -> bool:
        """Whether this very credential is being checked."""
        return self._digest(email, password) in self._checks

    async def authenticate(self, email: str, password: str) -> User | None:
        """Return the user, or None when there is no such user or the password is another.

        Raises:
            Unavailable: the users are out of reach and the credential is not remembered.
            ApiError: too many checks are waiting.
        """
        user = self.known(email, password)
        if user is not None:
            return user
        digest = self._digest(email, password)
        check = self._checks.get(digest)
        if check is None:
            if len(self._checks) >= _WAITING_MAX:
                message = "too many passwords are being checked; try again"
                raise ApiError(429, "TOO_MANY_LOGINS", message, headers={"Retry-After": "1"})
            check = self._checks[digest] = asyncio.create_task(self._check(email, password))
            check.add_done_callback(lambda check: self._checked(digest, check))
        # A client that goes must not take the check from the others that wait for it.
        return await asyncio.shield(check)

    def close(self) -> None:
        """End the threads."""
        self._users.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _find(self, email: str) -> _Stored | None:
        row = await self._find_user(email)
        return None if row is None else _Stored(User(row["id"], row["email"]), str(row["password"]))

    async def _check(self, email: str, password: str) -> User | None:
        # Always from the database: what is remembered would make known users quicker to refuse than unknown ones.
        try:
            stored = await self._users.reload(email)
        except Unavailable:
            stored = self._users.stale(email)
            if stored is None or self._digest(email, password, stored) not in self._matched:
                raise
        if stored is not None and self._digest(email, password, stored) in self._matched:
            return stored.user
        self._cost = self._cost if stored is None else _cost_of(stored.hash)
        loop, raw, known = asyncio.get_running_loop(), password.encode(), None if stored is None else stored.hash
        matches = await loop.run_in_executor(self._pool, _matches, raw, known, self._cost)
        if stored is None or not matches or (password == email and not self._demo_users):
            return None
        self._matched[self._digest(email, password, stored)] = None
        while len(self._matched) > _REMEMBERED_MAX:
            self._matched.popitem(last=False)
        return stored.user

    def _checked(self, digest: bytes, check: asyncio.Task[User | None]) -> None:
        del self._checks[digest]
        # All who waited may be gone; looked at, so that it is not reported as forgotten.
        if not check.cancelled():
            check.exception()

    def _digest(self, email: str, password: str, stored: _Stored | None = None) -> bytes:
        return self._keyed(f"{email}\0{'' if stored is None else stored.hash}\0{password}")

    def _keyed(self, text: str) -> bytes:
        digest = self._keyed_hash.copy()
        # Headers may have bytes that are no text; passwords never do.
        digest.update(text.encode(errors="surrogateescape"))
        return digest.digest()


def _cost_of(stored: str) -> int:
    found = _COST.match(stored)
    return min(int(found[1]), _COST_MAX) if found else _COST_DEFAULT


@cache
def _dummy_hash(cost: int) -> bytes:
    """Checked for unknown users, so that they take as long as known ones."""
    return bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(max(cost, 4)))


def _matches(password: bytes, stored: str | None, cost: int) -> bool:
    known = _dummy_hash(cost) if stored is None else stored.encode()
    try:
        right = bcrypt.checkpw(password[:PASSWORD_BYTES_MAX], known)
    except ValueError:
        # The stored text is no bcrypt hash: nobody can log in with it.
        return False
    return right and len(password) <= PASSWORD_BYTES_MAX
