"""Authentication: who gets in, for how long a checked credential is believed, and what is bounded."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import bcrypt
import pytest

from forkast_streams import auth
from forkast_streams.auth import Authenticator, User
from forkast_streams.errors import ApiError

EMAIL, PASSWORD = "alice@example.com", "correct horse"


class Users:
    """A user table of one user, which counts its look-ups."""

    def __init__(self, password: str) -> None:
        self.look_ups = 0
        self.set_password(password)

    def set_password(self, password: str) -> None:
        """Store another password's hash."""
        self._hash = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()

    async def find(self, email: str) -> dict[str, Any] | None:
        """The row of a user."""
        self.look_ups += 1
        return {"id": 1, "email": EMAIL, "password": self._hash} if email == EMAIL else None


async def test_right_password_is_believed_and_wrong_ones_are_not() -> None:
    """Only the exact pair gets in."""
    authenticator = Authenticator(Users(PASSWORD).find)
    assert await authenticator.authenticate(EMAIL, PASSWORD) == User(1, EMAIL)
    assert await authenticator.authenticate(EMAIL, PASSWORD + " ") is None
    assert await authenticator.authenticate("Alice@example.com", PASSWORD) is None
    assert await authenticator.authenticate("bob@example.com", PASSWORD) is None


async def test_checked_credential_is_remembered_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time nothing is looked up; after it a changed password is refused."""
    users = Users(PASSWORD)
    authenticator = Authenticator(users.find)
    await authenticator.authenticate(EMAIL, PASSWORD)
    users.set_password("changed")
    assert await authenticator.authenticate(EMAIL, PASSWORD) == User(1, EMAIL)
    assert users.look_ups == 1
    later = time.monotonic() + auth.REMEMBERED_S_MAX
    monkeypatch.setattr(auth.time, "monotonic", lambda: later)
    assert await authenticator.authenticate(EMAIL, PASSWORD) is None
    assert await authenticator.authenticate(EMAIL, "changed") == User(1, EMAIL)


async def test_password_longer_than_bcrypt_reads_is_refused() -> None:
    """Bcrypt would take any password with the same first 72 bytes for the right one."""
    long = "x" * auth.PASSWORD_BYTES_MAX
    authenticator = Authenticator(Users(long).find)
    assert await authenticator.authenticate(EMAIL, long) == User(1, EMAIL)
    assert await authenticator.authenticate(EMAIL, long + "y") is None


async def test_nothing_that_is_remembered_contains_the_password() -> None:
    """A credential is kept under a keyed hash."""
    authenticator = Authenticator(Users(PASSWORD).find)
    await authenticator.authenticate(EMAIL, PASSWORD)
    assert PASSWORD not in repr(authenticator._remembered)


async def test_flood_of_logins_is_answered_with_429() -> None:
    """What waits for the threads is bounded, and the event loop stays free."""
    authenticator = Authenticator(Users(PASSWORD).find)
    flood = [authenticator.authenticate(f"{number}@example.com", "x") for number in range(300)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ApiError)]
    assert refused
    assert {(error.status, error.code) for error in refused} == {(429, "TOO_MANY_LOGINS")}
    assert await authenticator.authenticate(EMAIL, PASSWORD) == User(1, EMAIL)
