"""Requests with an API key, on a server of their own: what a signature lets in once, and what is never let in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web

from forkast_streams import signatures
from forkast_streams.api_keys import ApiKeys
from forkast_streams.auth import Authenticator
from forkast_streams.config import RateSettings
from forkast_streams.limits import LARGEST_BODY_BYTES_MAX
from forkast_streams.rate_limits import RateLimits
from forkast_streams.signatures import sealed, signature, signing_key
from forkast_streams.storage.redis import connect
from tests.unit.test_auth import PASSWORD, Users
from web import auth, errors
from web.auth import Authentication
from web.bodies import read_body
from web.rate_limits import RequestLimits
from web.used_signatures import SharedUsedSignatures

KEY_ID, SECRET, SEALING_SECRET = "a" * 24, "s" * 43, "x" * 40
BODY = b'{"price":"101.25"}'
NO_REDIS = "redis://127.0.0.1:1"


class Clock:
    """The server's time, which stands still until a test sets it.

    Attributes:
        was_read: since it was cleared.
    """

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.was_read = asyncio.Event()

    def time(self) -> float:
        """Seconds since the epoch."""
        self.was_read.set()
        return self.now

    def monotonic(self) -> float:
        """The same: it is never set back."""
        return self.now


class KeyTable:
    """The table of API keys, with one key.

    Attributes:
        can_sign: whether it has a signing key.
    """

    def __init__(self) -> None:
        self.can_sign = True

    async def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """The row of a key."""
        assert name == "api_key_by_id"
        if parameters["id"] != KEY_ID:
            return []
        return [
            {
                "userId": 1,
                "email": "alice@example.com",
                "scopes": ["read", "trade"],
                "secretHash": hashlib.sha256(SECRET.encode()).digest(),
                "signingKey": sealed(signing_key(SECRET), KEY_ID, SEALING_SECRET) if self.can_sign else None,
            }
        ]


class Exchange:
    """A server with one route.

    Attributes:
        keys: the table of API keys.
        port: where it listens.
        served: bodies of the requests that were let in.
    """

    def __init__(self) -> None:
        self.keys = KeyTable()
        self.port = 0
        self.served: list[bytes] = []

    async def take(self, request: web.Request) -> web.Response:
        """The route."""
        self.served.append(await read_body(request, len(BODY)))
        return errors.json_response({})

    @asynccontextmanager
    async def connected(self, sent: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection on which bytes were sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(self, sent: bytes) -> int:
        """The status of the answer to a request."""
        async with self.connected(sent) as (reader, _):
            return await status_of(reader)


async def status_of(reader: asyncio.StreamReader) -> int:
    """The status of the next answer."""
    return int((await asyncio.wait_for(reader.readline(), 5)).split(b" ")[1])


def request_bytes(headers: dict[str, str], *, method: str = "POST", body: bytes = BODY, chunked: bool = False) -> bytes:
    """A whole request."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    lines = [f"{method} /orders HTTP/1.1", "Host: x", length, *(f"{name}: {value}" for name, value in headers.items())]
    content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked and body else b"0\r\n\r\n" if chunked else body
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + content


def signed(clock: Clock, method: str = "POST", body: bytes = BODY) -> dict[str, str]:
    """The headers of a request that is signed now."""
    timestamp = str(int(clock.now * 1_000))
    given = signature(signing_key(SECRET), timestamp, method, "/orders", body)
    return {"X-API-Key": KEY_ID, "X-Timestamp": timestamp, "X-Signature": given}


@asynccontextmanager
async def running(exchange: Exchange, rates: RateSettings) -> AsyncIterator[None]:
    """Serve ``exchange``."""
    app = web.Application()
    errors.install(app)
    used_signatures = SharedUsedSignatures(connect(NO_REDIS), 5_000)
    api_keys = ApiKeys(cast("Any", exchange.keys), SEALING_SECRET)
    limits = RequestLimits(RateLimits(connect(NO_REDIS)), rates, behind_proxy=False)
    app.middlewares.append(
        Authentication(Authenticator(Users(PASSWORD).find), api_keys, used_signatures, limits).middleware()
    )
    app.router.add_route("*", "/orders", exchange.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    exchange.port = runner.addresses[0][1]
    yield
    await runner.cleanup()
    api_keys.close()
    await used_signatures.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auth, "time", clock)
    monkeypatch.setattr(signatures, "time", clock)
    return clock


@pytest.fixture
async def exchange(clock: Clock) -> AsyncIterator[Exchange]:
    exchange = Exchange()
    async with running(exchange, RateSettings()):
        yield exchange


@pytest.mark.parametrize(("method", "body"), [("POST", BODY), ("DELETE", b"")])
async def test_a_body_that_is_held_back_makes_no_old_signature_count(
    exchange: Exchange, clock: Clock, method: str, body: bytes
) -> None:
    """It came in time, and is whole when nobody remembers any more that its signature was used."""
    headers = signed(clock, method, body)
    whole = request_bytes(headers, method=method, body=body, chunked=not body)
    assert [await exchange.ask(whole) for _ in range(2)] == [200, 401]
    clock.now += 4.7
    clock.was_read.clear()
    async with exchange.connected(whole[:-1]) as (reader, writer):
        await asyncio.wait_for(clock.was_read.wait(), 5)
        clock.now += 2.6
        writer.write(whole[-1:])
        assert await status_of(reader) == 401
    assert exchange.served == [body]


async def test_a_body_may_come_late_within_the_window(exchange: Exchange, clock: Clock) -> None:
    whole = request_bytes(signed(clock))
    async with exchange.connected(whole[:-1]) as (reader, writer):
        await asyncio.wait_for(clock.was_read.wait(), 5)
        clock.now += 4.9
        writer.write(whole[-1:])
        assert await status_of(reader) == 200


@pytest.mark.parametrize("header", [SECRET, f"{KEY_ID}:{SECRET}", f"{KEY_ID} {SECRET}", f"{KEY_ID}{SECRET}.x"])
async def test_secret_in_the_wrong_place_is_not_logged(
    exchange: Exchange, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    """Whoever mistypes the header finds the reason in the log, and not the secret."""
    assert await exchange.ask(request_bytes({"X-API-Key": header})) == 401
    assert 'user="(no key id)"' in caplog.text
    assert SECRET not in caplog.text


async def test_secret_that_is_no_text_is_a_wrong_one(exchange: Exchange) -> None:
    """Counted as all wrong secrets are."""
    wrong = request_bytes({"X-API-Key": f"{KEY_ID}.\udcff"})
    assert [await exchange.ask(wrong) for _ in range(11)] == [401] * 10 + [429]
    assert await exchange.ask(request_bytes({"X-API-Key": f"{KEY_ID}.{SECRET}"})) == 200


@pytest.mark.parametrize(("given", "can_sign"), [("nonsense", True), ("0" * 63, True), ("0" * 64, False)])
async def test_without_a_signature_no_body_is_waited_for(
    exchange: Exchange, clock: Clock, given: str, can_sign: bool
) -> None:
    """The id of a key, which is no secret, is not enough to have a server hold one."""
    exchange.keys.can_sign = can_sign
    async with exchange.connected(request_bytes(signed(clock) | {"X-Signature": given})[:-1]) as (reader, _):
        assert await status_of(reader) == 401


async def test_no_more_than_the_largest_body_of_a_route_is_read(exchange: Exchange, clock: Clock) -> None:
    """Whoever signs with a wrong key has that read, too."""
    body = b"x" * (LARGEST_BODY_BYTES_MAX + 1)
    wrong = {"X-Signature": "0" * 64}
    assert await exchange.ask(request_bytes(signed(clock, body=body[1:]) | wrong, body=body[1:])) == 401
    assert await exchange.ask(request_bytes(signed(clock, body=body) | wrong, body=body)) == 413
