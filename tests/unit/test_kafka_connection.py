"""A connection to a broker: answers go to their requests, late ones to nobody, and a broken one fails all that wait."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiokafka import conn
from aiokafka.admin import client as admin_client
from aiokafka.client import ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import consumer
from aiokafka.errors import CorrelationIdError, KafkaConnectionError
from aiokafka.producer import producer
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v1
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7

from forkast_streams.kafka_client import connection
from forkast_streams.kafka_client.client import Client
from forkast_streams.kafka_client.connection import Connection
from forkast_streams.kafka_client.protocol import encode_message

_VERSIONS = {0: (0, 9), 1: (0, 11), 3: (0, 1), 14: (0, 1)}
_METADATA = MetadataResponse_v1([(2, "127.0.0.1", 9092, None)], 2, [])
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
    # Another test may get this port.
    connection._avoided.clear()


def _produce() -> ProduceRequest:
    return ProduceRequest(None, -1, 1_000, [("orders.new", [(3, b"records")])])


def _fetch() -> FetchRequest:
    return FetchRequest(100, 1, 1_000, 0, [("orders.new", [(3, 0, 1_000)])], rack_id="")


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


async def test_a_request_leaves_no_garbage(broker: tuple[_Broker, Connection]) -> None:
    """Collections of what thousands of requests a second leave would hold up orders for a tenth of a second."""
    other_end, one = broker

    async def request(correlation_id: int) -> None:
        produced = one.send(_produce())
        await other_end.request()
        other_end.answer(correlation_id, _ANSWER.encode())
        await produced

    await request(1)
    gc.collect()
    gc.disable()
    try:
        for correlation_id in range(2, 102):
            await request(correlation_id)
        assert gc.collect() < 100
    finally:
        gc.enable()


async def test_an_answer_that_comes_too_late_goes_to_nobody(broker: tuple[_Broker, Connection]) -> None:
    """The one behind it goes where it belongs."""
    other_end, one = broker
    with pytest.raises(TimeoutError):
        await one.send(_produce())
    second = one.send(_produce())
    other_end.answer(1, ProduceResponse_v7([], 0).encode())
    other_end.answer(2, _ANSWER.encode())
    assert (await second).topics == _ANSWER.topics


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Where somebody listens and never answers."""
    monkeypatch.setattr(connection, "SILENT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()
    connection._avoided.clear()


def _client_of(brokers: list[tuple[str, int]]) -> Client:
    """A client that knows some brokers, from number 1 on."""
    one = Client()
    known = [(number, host, port, None) for number, (host, port) in enumerate(brokers, 1)]
    one.cluster.update_metadata(MetadataResponse_v1(known, 1, []))
    return one


@pytest.fixture
def patient(broker: tuple[_Broker, Connection], monkeypatch: pytest.MonkeyPatch) -> tuple[_Broker, Connection]:
    """Requests may take a minute, but a broker may be silent for a tenth of a second only."""
    monkeypatch.setattr(connection, "SILENT_S", 0.1)
    monkeypatch.setattr(connection, "_REPLICATED_S", 0.1)
    broker[1]._request_timeout = 60
    return broker


@pytest.mark.parametrize("request_", [_produce(), _fetch(), MetadataRequest([])])
async def test_a_silent_broker_is_not_waited_for(patient: tuple[_Broker, Connection], request_: Any) -> None:
    """A machine that is lost closes no connection."""
    _, one = patient
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.send(request_), 30)


async def test_an_answer_may_come_slowly(patient: tuple[_Broker, Connection]) -> None:
    """Over a slow network, or behind another one that does."""
    other_end, one = patient
    first, second = one.send(_produce()), one.send(MetadataRequest([]))
    answer = _ANSWER.encode()
    other_end.writer.write(struct.pack(">ii", len(answer) + 4, 1))
    for byte in answer:
        await asyncio.sleep(0.01)
        other_end.writer.write(bytes([byte]))
    other_end.answer(2, struct.pack(">iii", 0, 7, 0))
    assert (await first).topics == _ANSWER.topics
    assert (await second).controller_id == 7


async def test_what_waits_for_a_group_is_waited_for(patient: tuple[_Broker, Connection]) -> None:
    """And what comes behind it on the same connection."""
    other_end, one = patient
    waiting = asyncio.gather(one.send(SyncGroupRequest("group", 1, "member", None, [])), one.send(MetadataRequest([])))
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    other_end.answer(1, struct.pack(">ihi", 0, 0, 0))
    other_end.answer(2, struct.pack(">iii", 0, 7, 0))
    assert [type(answer).__name__ for answer in await waiting] == ["SyncGroupResponse_v1", "MetadataResponse_v1"]


async def test_a_loop_that_stood_still_looks_at_what_has_come(patient: tuple[_Broker, Connection]) -> None:
    """A command may take seconds."""
    other_end, one = patient
    waiting = one.send(_produce())
    await other_end.request()
    other_end.answer(1, _ANSWER.encode())
    # Not `asyncio.sleep`: nothing else may happen meanwhile.
    time.sleep(0.3)  # noqa: ASYNC251
    assert (await waiting).topics == _ANSWER.topics


async def test_who_connects_to_a_silent_broker_does_not_wait(silent: tuple[str, int]) -> None:
    """Nobody else could connect meanwhile."""
    one = Connection(*silent, client_id="client", request_timeout_ms=60_000, security_protocol="PLAINTEXT")
    with pytest.raises(TimeoutError, match="did not answer"):
        await asyncio.wait_for(one.connect(), 30)
    assert not one.connected()


async def test_nobody_connects_to_a_broker_that_became_silent(patient: tuple[_Broker, Connection]) -> None:
    """Who has another connection to it keeps that, until it is silent, too."""
    _, one = patient
    another = _client_of([(one._host, one._port)])
    assert not another._is_avoided(1)
    another._conns[1, ConnectionGroup.COORDINATION] = kept = SimpleNamespace(connected=lambda: True)
    with pytest.raises(TimeoutError):
        await one.send(MetadataRequest([]))
    assert not one.connected()
    assert await another._get_conn(1) is None
    assert await another._get_conn(1, group=ConnectionGroup.COORDINATION) is kept


async def test_who_waits_for_replicas_is_not_silent(patient: tuple[_Broker, Connection]) -> None:
    """One of those may be what is gone, and all leaders wait for it."""
    _, one = patient
    with pytest.raises(TimeoutError):
        await one.send(_produce())
    assert not connection.is_avoided(one._host, one._port)
    assert one.connected()


async def test_a_request_may_leave_slowly(patient: tuple[_Broker, Connection]) -> None:
    """Over a slow network."""
    other_end, one = patient
    for writer, option in ((one._writer, socket.SO_SNDBUF), (other_end.writer, socket.SO_RCVBUF)):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 1 << 14)
    size = 1 << 21
    waiting = asyncio.ensure_future(one.send(ProduceRequest(None, -1, 1_000, [("orders.new", [(3, bytes(size))])])))
    began, arrived = time.monotonic(), 0
    while arrived < size:
        arrived += len(await other_end.reader.read(1 << 14))
        await asyncio.sleep(0.002)
    assert time.monotonic() - began > 2 * connection._REPLICATED_S
    other_end.answer(1, _ANSWER.encode())
    assert (await waiting).topics == _ANSWER.topics


async def test_those_who_wait_to_connect_do_not_try_one_after_the_other(silent: tuple[str, int]) -> None:
    """The first one finds that the broker is silent."""
    one = _client_of([silent])
    began = time.monotonic()
    assert await asyncio.gather(*(one._get_conn(1) for _ in range(20))) == [None] * 20
    assert time.monotonic() - began < 20 * connection.SILENT_S / 2


async def test_who_gives_up_to_connect_lets_nobody_in(silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the broker is still so."""
    monkeypatch.setattr(connection, "SILENT_S", 60)
    monkeypatch.setitem(connection._avoided, silent, 0.0)
    one = Connection(*silent, client_id="client", request_timeout_ms=60_000, security_protocol="PLAINTEXT")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.connect(), 0.05)
    assert connection.is_avoided(*silent)


async def test_a_random_broker_is_one_that_is_not_silent(silent: tuple[str, int]) -> None:
    """Unless all are."""
    one = _client_of([silent, ("127.0.0.1", 1)])
    assert await one._get_conn(1) is None
    assert {one.get_random_node() for _ in range(50)} == {2}
    connection._avoided["127.0.0.1", 1] = connection._avoided[silent]
    assert {one.get_random_node() for _ in range(50)} == {1, 2}


async def test_one_at_a_time_tries_whether_a_broker_is_still_silent(
    silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others do not wait for the outcome."""
    one = _client_of([silent])
    monkeypatch.setitem(connection._avoided, silent, 0.0)
    trying = asyncio.create_task(one._get_conn(1))
    while not connection.is_avoided(*silent):  # noqa: ASYNC110 - it is about turns of the loop
        await asyncio.sleep(0)
    assert await one._get_conn(1) is None
    assert not trying.done()
    assert await trying is None


async def test_a_broker_that_refuses_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is being started again, for instance."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    monkeypatch.setitem(connection._avoided, address, 0.0)
    one = _client_of([address])
    assert await one._get_conn(1) is None
    assert not connection.is_avoided(*address)


async def test_new_leaders_are_found_though_a_broker_is_silent(
    silent: tuple[str, int], patient: tuple[_Broker, Connection]
) -> None:
    """Whichever broker is drawn first."""
    other_end, one = patient
    one._versions = _VERSIONS
    asking = _client_of([silent, (one._host, one._port)])
    asking._conns[2, ConnectionGroup.DEFAULT] = one
    assert await asking._get_conn(1) is None
    for correlation_id in range(1, 9):
        asked = asyncio.create_task(asking._metadata_update(ClusterMetadata(), ["orders.new"]))
        await other_end.request()
        other_end.answer(correlation_id, _METADATA.encode())
        assert await asked


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
    assert {module.AIOKafkaClient for module in (admin_client, consumer, producer)} == {Client}
