"""A connection to a broker: answers go to their requests, late ones to nobody, and a broken one fails all that wait."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop
from aiokafka import conn
from aiokafka.errors import CorrelationIdError, KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7

from forkast_streams.kafka_client.connection import Connection
from forkast_streams.kafka_client.protocol import encode_message

_VERSIONS = {0: (0, 9), 3: (0, 1)}
_ANSWER = ProduceResponse_v7([("orders.new", [(3, 0, 40, 5, 0)])], 0)


class _Broker:
    """The other end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The next request as it came."""
        size = await self.reader.readexactly(4)
        return size + await self.reader.readexactly(struct.unpack(">i", size)[0])

    def answer(self, correlation_id: int, body: bytes) -> None:
        """Answer a request."""
        self.writer.write(struct.pack(">ii", len(body) + 4, correlation_id) + body)


@pytest.fixture
async def broker() -> AsyncIterator[tuple[_Broker, Connection]]:
    """A broker that is connected to, with a tenth of a second for each answer."""
    other_end, accepted = _Broker(), asyncio.Event()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_end.reader, other_end.writer = reader, writer
        accepted.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    one = Connection(
        "127.0.0.1",
        server.sockets[0].getsockname()[1],
        client_id="client",
        request_timeout_ms=100,
        security_protocol="PLAINTEXT",
    )

    async def look_up_versions() -> None:
        one._versions = _VERSIONS

    one._do_version_lookup = look_up_versions
    await one.connect()
    await accepted.wait()
    yield other_end, one
    one.close()
    other_end.writer.close()
    await other_end.writer.wait_closed()
    server.close()
    await server.wait_closed()


def _produce() -> ProduceRequest:
    return ProduceRequest(None, -1, 1_000, [("orders.new", [(3, b"records")])])


async def test_requests_of_both_kinds_get_their_answers(broker: tuple[_Broker, Connection]) -> None:
    """In the order in which they were sent, the quick ones and all others."""
    other_end, one = broker
    produced, told = one.send(_produce()), one.send(MetadataRequest([]))
    assert await other_end.request() == encode_message(_produce().prepare(_VERSIONS), 1, "client")
    await other_end.request()
    other_end.answer(1, _ANSWER.encode())
    other_end.answer(2, struct.pack(">iii", 0, 7, 0))
    assert (await produced).topics == _ANSWER.topics
    assert (await told).controller_id == 7


async def test_an_answer_that_comes_too_late_goes_to_nobody(broker: tuple[_Broker, Connection]) -> None:
    """The one behind it goes where it belongs."""
    other_end, one = broker
    with pytest.raises(TimeoutError):
        await one.send(_produce())
    second = one.send(_produce())
    other_end.answer(1, ProduceResponse_v7([], 0).encode())
    other_end.answer(2, _ANSWER.encode())
    assert (await second).topics == _ANSWER.topics


async def test_an_answer_to_another_request_breaks_the_connection(broker: tuple[_Broker, Connection]) -> None:
    """Nothing that comes can be trusted any more."""
    other_end, one = broker
    waiting = one.send(_produce())
    other_end.answer(99, _ANSWER.encode())
    with pytest.raises(CorrelationIdError):
        await waiting
    with pytest.raises(KafkaConnectionError):
        one.send(_produce())


async def test_an_answer_that_cannot_be_read_fails_its_request(
    broker: tuple[_Broker, Connection], caplog: pytest.LogCaptureFixture
) -> None:
    """And is logged."""
    # Those of the command line's tests that run before in this process leave it silent, as its users want it.
    caplog.set_level(logging.ERROR, logger="aiokafka")
    other_end, one = broker
    waiting = one.send(_produce())
    other_end.answer(1, _ANSWER.encode()[:-3])
    with pytest.raises(KafkaConnectionError):
        await waiting
    assert "Unexpected exception" in caplog.text


async def _send_right_after_a_reset(request: Any) -> None:
    """Before the connection's reader has learned of it."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    listening = socket.create_server(("127.0.0.1", 0))
    one = Connection("127.0.0.1", 1, client_id="client", request_timeout_ms=100, security_protocol="PLAINTEXT")
    transport, protocol = await loop.create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), *listening.getsockname()
    )
    accepted, _ = listening.accept()
    one._reader, one._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
    one._versions, one._read_task = _VERSIONS, loop.create_future()
    # Without a wait for what was sent it is a reset.
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    listening.close()
    while reader.exception() is None:  # noqa: ASYNC110 - it is about turns of the loop
        await asyncio.sleep(0)
    one.send(request)


@pytest.mark.parametrize("request_", [_produce(), MetadataRequest([])])
def test_a_connection_that_was_just_reset_is_told_as_broken(request_: Any) -> None:
    """Uvloop's own RuntimeError would end whoever sends."""
    with pytest.raises(KafkaConnectionError):
        uvloop.run(_send_right_after_a_reset(request_))


def test_aiokafka_makes_these_connections() -> None:
    """Whoever connects."""
    assert conn.AIOKafkaConnection is Connection
