"""Authentication: who gets in, for how long a checked credential is believed, and what is bounded."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import bcrypt
import pytest

from forkast_streams import auth, stale_cache
from forkast_streams.auth import Authenticator, User
from forkast_streams.errors import ApiError, Unavailable

EMAIL, PASSWORD = "alice@example.com", "correct horse"


class Users:
    """A user table of one user, which counts its look-ups."""

    def __init__(self, password: str) -> None:
        self.look_ups = 0
        self.are_away = False
        self.set_password(password)

    def set_password(self, password: str) -> None:
        """Store another password's hash."""
        self._hash = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()

    async def find(self, email: str) -> dict[str, Any] | None:
        """The row of a user."""
        self.look_ups += 1
        if self.are_away:
            raise Unavailable("away")
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
    monkeypatch.setattr(stale_cache.time, "monotonic", lambda: later)
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
    assert len(authenticator._matched) == 1
    assert PASSWORD not in repr([vars(authenticator), vars(authenticator._users)])


async def test_flood_of_logins_is_answered_with_429() -> None:
    """What waits for the threads is bounded, and the event loop stays free."""
    authenticator = Authenticator(Users(PASSWORD).find)
    flood = [authenticator.authenticate(f"{number}@example.com", "x") for number in range(300)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ApiError)]
    assert refused
    assert {(error.status, error.code) for error in refused} == {(429, "TOO_MANY_LOGINS")}
    assert await authenticator.authenticate(EMAIL, PASSWORD) == User(1, EMAIL)


async def test_many_first_requests_with_one_credential_wait_for_one_check() -> None:
    """However many there are at once, none is refused, and the hash is computed once."""
    users = Users(PASSWORD)
    authenticator = Authenticator(users.find)
    answers = await asyncio.gather(*(authenticator.authenticate(EMAIL, PASSWORD) for _ in range(500)))
    assert set(answers) == {User(1, EMAIL)}
    assert users.look_ups == 1


async def test_client_that_goes_takes_the_check_from_nobody() -> None:
    """The first of two requests is cancelled; the second gets its answer."""
    authenticator = Authenticator(Users(PASSWORD).find)
    first, second = (asyncio.create_task(authenticator.authenticate(EMAIL, PASSWORD)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == User(1, EMAIL)


async def test_known_credential_serves_while_the_users_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """For ten minutes, and no other password gets in on its back."""
    users = Users(PASSWORD)
    authenticator = Authenticator(users.find)
    await authenticator.authenticate(EMAIL, PASSWORD)
    users.are_away = True
    start, clock = time.monotonic(), SimpleNamespace(passed=0.0)
    monkeypatch.setattr(stale_cache.time, "monotonic", lambda: start + clock.passed)
    for clock.passed in (59.0, 120.0, 599.0):
        assert await authenticator.authenticate(EMAIL, PASSWORD) == User(1, EMAIL)
        with pytest.raises(Unavailable):
            await authenticator.authenticate(EMAIL, "another")
    clock.passed = 601.0
    with pytest.raises(Unavailable):
        await authenticator.authenticate(EMAIL, PASSWORD)


async def test_user_in_use_is_looked_up_beside_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request waits for the look-up, and a password that was changed is refused after it."""
    users = Users(PASSWORD)
    authenticator = Authenticator(users.find)
    await authenticator.authenticate(EMAIL, PASSWORD)
    users.set_password("changed")
    later = time.monotonic() + auth.REMEMBERED_S_MAX * 0.6
    monkeypatch.setattr(stale_cache.time, "monotonic", lambda: later)
    assert authenticator.known(EMAIL, PASSWORD) == User(1, EMAIL)
    await authenticator._users.reload(EMAIL)
    assert users.look_ups == 2
    assert authenticator.known(EMAIL, PASSWORD) is None


async def test_a_header_is_recalled_as_long_as_its_credential_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only after the credential was found to be right, only for the same bytes, and no longer than it is believed."""
    users = Users(PASSWORD)
    authenticator = Authenticator(users.find)
    header = "Basic some-text\udcff"
    assert authenticator.recall(header) is None
    authenticator.remember(header, EMAIL)
    assert authenticator.recall(header) is None, "nobody has checked it"
    await authenticator.authenticate(EMAIL, PASSWORD)
    authenticator.remember(header, EMAIL)
    assert authenticator.recall(header) == User(1, EMAIL)
    assert authenticator.recall(header + "x") is None
    assert "some-text" not in repr(vars(authenticator))
    later = time.monotonic() + auth.REMEMBERED_S_MAX
    with monkeypatch.context() as patched:
        patched.setattr(stale_cache.time, "monotonic", lambda: later)
        assert authenticator.recall(header) is None
    assert authenticator.recall(header) == User(1, EMAIL)
    users.set_password("changed")
    await authenticator._users.reload(EMAIL)
    assert authenticator.recall(header) is None


async def test_password_that_is_the_email_is_for_demo_users_only() -> None:
    """It is right, and it gets nobody in unless demo users are wanted."""
    assert await Authenticator(Users(EMAIL).find).authenticate(EMAIL, EMAIL) is None
    assert await Authenticator(Users(EMAIL).find, demo_users=True).authenticate(EMAIL, EMAIL) == User(1, EMAIL)
