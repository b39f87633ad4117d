"""Sending: a worker goes on while several batches of a partition wait for their requests, up to a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    ProducerClosed,
)
from aiokafka.producer import producer as aiokafka_producer
from aiokafka.protocol.produce import ProduceResponse_v7

from forkast_streams.kafka_client import sender
from tests.support.sending import TP, Cluster, add, batch_of


def _accumulator() -> Any:
    return aiokafka_producer.MessageAccumulator(Cluster(), 1_000, None, 10.0)


def _data(nodes: dict[int, Any]) -> bytes:
    return bytes(nodes[0][TP].get_data_buffer())


async def test_batches_of_a_partition_wait_in_line_and_leave_one_a_request() -> None:
    """In the order in which they were handed over; with another partition there is no line."""
    accumulator = _accumulator()
    acknowledged = [await add(accumulator, b"%d" % number) for number in range(sender._BATCHES_WAITING_MAX)]
    assert len({id(future) for future in acknowledged}) == sender._BATCHES_WAITING_MAX
    left = []
    while accumulator._batches:
        nodes, _ = accumulator.drain_by_nodes(ignore_nodes=set())
        left.append(_data(nodes)[-2:-1])
    assert left == [b"%d" % number for number in range(sender._BATCHES_WAITING_MAX)]


async def test_a_batch_too_many_waits_until_there_is_room() -> None:
    """Or until its time is over."""
    accumulator = _accumulator()
    for _ in range(sender._BATCHES_WAITING_MAX):
        await add(accumulator, b"v")
    with pytest.raises(KafkaTimeoutError):
        await add(accumulator, b"v", within_s=0.01)
    late = asyncio.create_task(add(accumulator, b"late"))
    await asyncio.sleep(0)
    assert not late.done()
    accumulator.drain_by_nodes(ignore_nodes=set())
    await late
    assert len(accumulator._batches[TP]) == sender._BATCHES_WAITING_MAX


async def test_a_batch_retried_goes_first() -> None:
    """The others still wait behind it, so the log has them in their order."""
    accumulator = _accumulator()
    for value in (b"first", b"second"):
        await add(accumulator, value)
    nodes, _ = accumulator.drain_by_nodes(ignore_nodes=set())
    accumulator.reenqueue(nodes[0][TP])
    nodes, _ = accumulator.drain_by_nodes(ignore_nodes=set())
    assert b"first" in _data(nodes)


async def test_a_closed_producer_takes_nothing_more() -> None:
    """However many wait."""
    accumulator = _accumulator()
    await add(accumulator, b"v")
    accumulator._closed = True
    with pytest.raises(ProducerClosed):
        await add(accumulator, b"v")


async def test_producers_have_this_accumulator_and_this_sender() -> None:
    """Nobody else makes them."""
    made = AIOKafkaProducer()
    await made.stop()
    assert type(made._message_accumulator) is sender.Accumulator
    assert type(made._sender) is sender.Sender


class _Client:
    """A broker that holds each request until the test answers it."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.requests: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    async def send(self, _node: int, request: Any) -> Any:
        """Produce."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.requests.put_nowait((request, answer))
        return await answer

    async def next(self) -> tuple[dict[int, bytes], asyncio.Future[Any]]:
        """The batches of the next request by partition, and its answer."""
        request, answer = await asyncio.wait_for(self.requests.get(), 5)
        [(_, partitions)] = request._topics
        return {number: bytes(batch) for number, batch in partitions}, answer

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """Nothing new."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(True)
        return future

    async def _maybe_wait_metadata(self) -> None:
        """It is there."""


def _acknowledged(*partitions: int, error: int = 0) -> ProduceResponse_v7:
    return ProduceResponse_v7([(TP.topic, [(number, error, 40, -1, 0) for number in partitions])], 0)


@pytest.fixture
async def sending(producing: sender.Sender) -> tuple[_Client, Any]:
    """A broker, and an accumulator whose batches are sent to it."""
    return producing.client, producing._message_accumulator


@pytest.fixture
async def producing() -> AsyncIterator[sender.Sender]:
    """A sender with a broker."""
    client, accumulator = _Client(), _accumulator()
    one = sender.Sender(
        client, acks=-1, txn_manager=None, message_accumulator=accumulator, retry_backoff_ms=1, request_timeout_ms=1_000
    )
    await one.start()
    yield one
    one.sender_task.cancel()
    await asyncio.gather(one.sender_task, return_exceptions=True)


async def test_what_comes_while_a_request_is_under_way_leaves_together(sending: tuple[_Client, Any]) -> None:
    """One batch alone waits for nobody; those behind it share the next request."""
    client, accumulator = sending
    first = await add(accumulator, b"first")
    batches, answer = await client.next()
    assert list(batches) == [TP.partition]
    others = [
        asyncio.shield(accumulator._append_batch(batch_of(b"v"), TopicPartition(TP.topic, n)).future) for n in (4, 5)
    ]
    await asyncio.sleep(0)
    assert client.requests.empty()
    answer.set_result(_acknowledged(TP.partition))
    assert (await first).offset == 40
    batches, answer = await client.next()
    assert sorted(batches) == [4, 5]
    answer.set_result(_acknowledged(4, 5))
    await asyncio.gather(*others)


async def test_whoever_waits_for_the_broker_goes_on_when_its_request_ends(
    producing: sender.Sender, sending: tuple[_Client, Any]
) -> None:
    """Whatever became of it; nobody waits for a broker that has nothing to do."""
    client, accumulator = sending
    await asyncio.wait_for(producing.until_free(TP), 5)
    for failure in (None, KafkaConnectionError()):
        acknowledged = await add(accumulator, b"v")
        _, answer = await client.next()
        waiting = [asyncio.create_task(producing.until_free(TopicPartition(TP.topic, n))) for n in (3, 4)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        if failure is None:
            answer.set_result(_acknowledged(TP.partition))
        else:
            answer.set_exception(failure)
            _, answer = await client.next()
            answer.set_result(_acknowledged(TP.partition))
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        await acknowledged


async def test_what_is_made_of_one_fetch_leaves_together(sending: tuple[_Client, Any]) -> None:
    """Batches of several partitions, a turn or two of the loop from one to the next; later ones have their own."""
    client, accumulator = sending
    acknowledged = []
    for number in range(4):
        tp = TopicPartition(TP.topic, number)
        acknowledged.append(await accumulator.add_batch(batch_of(b"v"), tp, 10.0))
        for _ in range(sender.GATHER_TURNS - 1):
            await asyncio.sleep(0)
    batches, answer = await client.next()
    assert sorted(batches) == [0, 1, 2, 3]
    late = await add(accumulator, b"late")
    answer.set_result(_acknowledged(0, 1, 2, 3))
    await asyncio.gather(*acknowledged)
    _, answer = await client.next()
    answer.set_result(_acknowledged(TP.partition))
    await late


@pytest.mark.parametrize(("turns", "together"), [(sender.GATHER_TURNS, True), (1, False)])
async def test_who_hands_all_over_at_once_is_not_waited_for(
    producing: sender.Sender, sending: tuple[_Client, Any], *, turns: int, together: bool
) -> None:
    """With one turn to gather, what is made three turns later has a request of its own."""
    client, accumulator = sending
    producing.gather_turns = turns
    acknowledged = []
    for number in range(2):
        tp = TopicPartition(TP.topic, number)
        acknowledged.append(await accumulator.add_batch(batch_of(b"v"), tp, 10.0))
        for _ in range(sender.GATHER_TURNS):
            await asyncio.sleep(0)
    batches, answer = await client.next()
    assert sorted(batches) == ([0, 1] if together else [0])
    answer.set_result(_acknowledged(*batches))
    if not together:
        batches, answer = await client.next()
        assert list(batches) == [1]
        answer.set_result(_acknowledged(1))
    await asyncio.gather(*acknowledged)


async def test_a_stream_of_batches_does_not_hold_the_first_one_up(sending: tuple[_Client, Any]) -> None:
    """A worker under load makes them without end."""
    client, accumulator = sending
    acknowledged: list[asyncio.Future[Any]] = []
    while client.requests.empty():
        tp = TopicPartition(TP.topic, len(acknowledged))
        acknowledged.append(await accumulator.add_batch(batch_of(b"v"), tp, 10.0))
        await asyncio.sleep(0)
    assert len(acknowledged) < (sender._GATHERED_MAX + 2) * sender.GATHER_TURNS
    while not all(future.done() for future in acknowledged):
        batches, answer = await client.next()
        answer.set_result(_acknowledged(*batches))
        await asyncio.gather(*(acknowledged[number] for number in batches))


async def test_a_request_that_fails_is_sent_again_before_what_came_behind(sending: tuple[_Client, Any]) -> None:
    """The log has a partition's batches in their order."""
    client, accumulator = sending
    acknowledged = [await add(accumulator, value) for value in (b"first", b"second")]
    sent = []
    _, answer = await client.next()
    answer.set_exception(KafkaConnectionError())
    for _ in range(2):
        batches, answer = await client.next()
        sent.append(batches[TP.partition])
        answer.set_result(_acknowledged(TP.partition))
    assert b"first" in sent[0]
    assert b"second" in sent[1]
    await asyncio.gather(*acknowledged)


async def test_an_unexpected_error_ends_the_sender(sending: tuple[_Client, Any]) -> None:
    """What waits fails with it."""
    client, accumulator = sending
    acknowledged = await add(accumulator, b"v")
    _, answer = await client.next()
    answer.set_exception(ZeroDivisionError())
    with pytest.raises(KafkaError, match="Unexpected error during batch delivery"):
        await asyncio.wait_for(acknowledged, 5)
