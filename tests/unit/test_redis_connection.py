"""Clients of Redis find the new primary when the one they are connected to has become a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.storage.redis import connect
from tests.support.flows import symbol_command
from tests.support.market_events import HOME, SYMBOL, engine_with

_REPLICA = b"-READONLY You can't write against a read only replica.\r\n"
_OLD_REPLICA = b"-ERR Error running script (call to f_1): @user_script: 9: -READONLY You can't write.\r\n"


class FakeRedis:
    """A name that leads to a primary: once it is ``moved``, only connections made since then reach the new one.

    Attributes:
        refusal: what the old one answers to writes by then.
        written: the writes that the new primary has taken.
    """

    def __init__(self) -> None:
        self.is_moved = False
        self.refusal = _REPLICA
        self.written = 0
        self.has_written = asyncio.Event()
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the commands of one connection."""
        is_old = not self.is_moved
        self.connections += 1
        while count := (await reader.readline())[1:]:
            parts = []
            for _ in range(int(count)):
                length = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(length + 2))[:-2])
            writer.write(self._answer(parts, is_old=is_old))
        writer.close()

    def _answer(self, parts: list[bytes], *, is_old: bool) -> bytes:
        command = parts[0].upper()
        if command == b"SCRIPT":
            return b"$40\r\n%b\r\n" % ((b"p" if b"HLEN" in parts[2] else b"a") * 40)
        if command == b"EVALSHA" and parts[1][:1] == b"p":
            return b"*1\r\n*4\r\n:-1\r\n:-1\r\n:0\r\n:0\r\n"
        if command == b"HMGET":
            return b"*2\r\n$-1\r\n$-1\r\n"
        if command not in (b"SET", b"EVALSHA"):
            return b"+OK\r\n"
        if is_old and self.is_moved:
            return self.refusal
        if not is_old:
            self.written += 1
            self.has_written.set()
        return b"+OK\r\n" if command == b"SET" else b"$5\r\nKNOWN\r\n"


@pytest.fixture
async def server() -> AsyncIterator[tuple[FakeRedis, str]]:
    """A server and its URL."""
    fake = FakeRedis()
    listening = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    yield fake, f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()


@pytest.mark.parametrize("refusal", [_REPLICA, _OLD_REPLICA])
async def test_a_replica_is_left(server: tuple[FakeRedis, str], refusal: bytes) -> None:
    """The command fails, and the next one goes to whom the name leads to by then."""
    fake, url = server
    fake.refusal = refusal
    client = connect(url)
    await client.set("a", 1)
    fake.is_moved = True
    with pytest.raises(ResponseError):
        await client.set("a", 2)
    await client.set("a", 3)
    assert (fake.written, fake.connections) == (1, 2)
    await client.aclose()


async def test_a_pipeline_gets_all_answers_of_a_replica(server: tuple[FakeRedis, str]) -> None:
    """What is not a write is answered, and the connection is not used again."""
    fake, url = server
    client = connect(url)
    await client.ping()
    fake.is_moved = True
    async with client.pipeline(transaction=False) as pipeline:
        answers = await pipeline.set("a", 1).hmget("b", ["c", "d"]).set("a", 2).execute(raise_on_error=False)
    assert [type(answer) for answer in answers] == [ReadOnlyError, list, ReadOnlyError]
    await client.set("a", 3)
    assert fake.written == 1
    await client.aclose()


async def test_a_keeper_goes_on_with_the_new_primary(server: tuple[FakeRedis, str]) -> None:
    """By itself, with the books that the old one has refused."""
    fake, url = server
    publisher = RedisPublisher(url, LocalFeed())
    await publisher.start()
    state = MarketDataState(HOME)
    _, records = engine_with([symbol_command(SYMBOL)])
    # Connected before it moves.
    await publisher._redis.ping()
    fake.is_moved = True
    publisher.publish(state.apply(records), state.books)
    async with asyncio.timeout(5):
        await fake.has_written.wait()
    await publisher.stop()


@pytest.mark.parametrize("refusal", [ReadOnlyError("no"), NoPermissionError("no"), OutOfMemoryError("no")])
def test_a_keeper_says_what_redis_answers(refusal: ResponseError) -> None:
    """To start it, or another REDIS_URL, would not help."""
    publisher = RedisPublisher("redis://127.0.0.1:1", LocalFeed())
    publisher._set_lost(refusal)
    assert publisher.why_not_ready() == f"Redis refuses to be written: {refusal!r}"
    publisher._set_lost(ConnectionError("refused"))
    assert publisher.why_not_ready() == "Redis is out of reach; start it or set REDIS_URL"


@pytest.mark.parametrize(
    ("url", "kind"),
    [("redis://h", Connection), ("rediss://h", SSLConnection), ("unix:///h", UnixDomainSocketConnection)],
)
def test_every_scheme_leaves_a_replica(url: str, kind: type) -> None:
    """With TLS and by a socket file, too."""
    made = connect(url).connection_pool.make_connection()
    assert isinstance(made, kind)
    assert type(made).read_response is not kind.read_response
