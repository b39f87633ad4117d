"""How long a credential lets a stream go on, and how many connections an address may have."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from forkast_streams import auth, stale_cache
from forkast_streams.auth import Authenticator
from forkast_streams.errors import Unavailable
from tests.unit.test_auth import EMAIL, PASSWORD, Users
from web.auth import Authentication
from web.protocol import BoundaryServer

KEY_ID = "0" * 24


class Keys:
    """One API key, as `ApiKeys` finds it."""

    def __init__(self) -> None:
        self.is_revoked = False
        self.are_away = False

    async def find(self, key_id: str) -> object | None:
        """The key."""
        if self.are_away:
            raise Unavailable("away")
        return object() if key_id == KEY_ID and not self.is_revoked else None


def authentication(users: Users, keys: Keys) -> Authentication:
    """What is asked again; nothing is counted and nothing replayed."""
    return Authentication(Authenticator(users.find), cast("Any", keys), cast("Any", None), cast("Any", None))


async def test_a_changed_password_ends_a_stream_within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users(PASSWORD)
    asked = authentication(users, Keys())
    credential = base64.b64encode(f"{EMAIL}:{PASSWORD}".encode()).decode()
    request = make_mocked_request("GET", "/", headers={"Authorization": f"Basic {credential}"})
    assert await asked.still_lets_in(request)
    users.set_password("changed")
    later = time.monotonic() + auth.REMEMBERED_S_MAX
    monkeypatch.setattr(stale_cache.time, "monotonic", lambda: later)
    users.are_away = True
    assert await asked.still_lets_in(request), "whether it was changed cannot be told while the users are away"
    users.are_away = False
    later += auth.REMEMBERED_S_MAX
    assert not await asked.still_lets_in(request)


async def test_a_revoked_key_ends_a_stream() -> None:
    keys = Keys()
    asked = authentication(Users(PASSWORD), keys)
    request = make_mocked_request("GET", "/", headers={"X-API-Key": f"{KEY_ID}.secret"})
    assert await asked.still_lets_in(request)
    keys.is_revoked = keys.are_away = True
    assert await asked.still_lets_in(request)
    keys.are_away = False
    assert not await asked.still_lets_in(request)


@asynccontextmanager
async def serving(address_max: int | None) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A server, the port it listens on, and what its requests wait for."""
    may_answer = asyncio.Event()

    async def handle(_: web.BaseRequest) -> web.Response:
        await may_answer.wait()
        return web.Response(text="here")

    server = BoundaryServer(handle)
    server.address_max = address_max
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], may_answer
    finally:
        may_answer.set()
        listening.close()
        await server.shutdown(1.0)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(port: int) -> Connection:
    """A connection with a request under way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: exchange\r\n\r\n")
    return reader, writer


async def is_answered(connection: Connection) -> bool:
    """Whether the answer comes, and not the connection's end."""
    reader, _ = connection
    try:
        return (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
    except ConnectionResetError:
        return False


async def close(*connections: Connection) -> None:
    """End connections."""
    for _, writer in connections:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in connections), return_exceptions=True)


async def test_an_address_with_too_many_busy_connections_gets_no_more() -> None:
    async with serving(3) as (port, may_answer):
        busy = [await ask(port) for _ in range(3)]
        refused = await ask(port)
        assert not await is_answered(refused)
        may_answer.set()
        assert [await is_answered(one) for one in busy] == [True] * 3
        await close(*busy, refused)
        # Those that have gone count no more.
        again = await ask(port)
        assert await is_answered(again)
        await close(again)


async def test_an_idle_connection_of_the_address_makes_room() -> None:
    async with serving(2) as (port, may_answer):
        may_answer.set()
        first, second = await ask(port), await ask(port)
        assert await is_answered(first)
        assert await is_answered(second)
        third = await ask(port)
        assert await is_answered(third)
        await asyncio.wait_for(first[0].read(), 5)
        assert first[0].at_eof(), "the one that has been idle longest is closed"
        await close(first, second, third)


async def test_behind_a_proxy_all_connections_have_one_address_and_none_is_refused() -> None:
    async with serving(None) as (port, may_answer):
        busy = [await ask(port) for _ in range(10)]
        may_answer.set()
        assert [await is_answered(one) for one in busy] == [True] * 10
        await close(*busy)
