"""Sending: a worker goes on while several batches of a partition wait for their requests, up to a bound."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    TopicAuthorizationFailedError,
)
from aiokafka.producer import producer as aiokafka_producer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.produce import ProduceResponse_v7
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.memory_records import MemoryRecords

from forkast_streams.kafka_client import sender

_TP = TopicPartition("orders.exchange", 3)
_OUT_OF_ORDER = OutOfOrderSequenceNumber.errno


class _Cluster:
    """Knows one broker, or none."""

    leader = 0

    def leader_for_partition(self, _tp: TopicPartition) -> int:
        """The broker."""
        return self.leader


def _batch(value: bytes) -> BatchBuilder:
    builder = BatchBuilder(1_000, 0)
    builder.append(timestamp=1, key=b"7", value=value)
    return builder


def _accumulator() -> Any:
    return aiokafka_producer.MessageAccumulator(_Cluster(), 1_000, None, 10.0)


async def _add(accumulator: Any, value: bytes, within_s: float = 10.0) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = await accumulator.add_batch(_batch(value), _TP, within_s)
    return future


def _data(nodes: dict[int, Any]) -> bytes:
    return bytes(nodes[0][_TP].get_data_buffer())


async def test_batches_of_a_partition_wait_in_line_and_leave_one_a_request() -> None:
    """In the order in which they were handed over; with another partition there is no line."""
    accumulator = _accumulator()
    acknowledged = [await _add(accumulator, b"%d" % number) for number in range(sender._BATCHES_WAITING_MAX)]
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
        await _add(accumulator, b"v")
    with pytest.raises(KafkaTimeoutError):
        await _add(accumulator, b"v", within_s=0.01)
    late = asyncio.create_task(_add(accumulator, b"late"))
    await asyncio.sleep(0)
    assert not late.done()
    accumulator.drain_by_nodes(ignore_nodes=set())
    await late
    assert len(accumulator._batches[_TP]) == sender._BATCHES_WAITING_MAX


async def test_a_batch_retried_goes_first() -> None:
    """The others still wait behind it, so the log has them in their order."""
    accumulator = _accumulator()
    for value in (b"first", b"second"):
        await _add(accumulator, value)
    nodes, _ = accumulator.drain_by_nodes(ignore_nodes=set())
    accumulator.reenqueue(nodes[0][_TP])
    nodes, _ = accumulator.drain_by_nodes(ignore_nodes=set())
    assert b"first" in _data(nodes)


async def test_a_closed_producer_takes_nothing_more() -> None:
    """However many wait."""
    accumulator = _accumulator()
    await _add(accumulator, b"v")
    accumulator._closed = True
    with pytest.raises(ProducerClosed):
        await _add(accumulator, b"v")


async def test_producers_have_this_accumulator_and_this_sender() -> None:
    """Nobody else makes them."""
    made = AIOKafkaProducer()
    await made.stop()
    assert type(made._message_accumulator) is sender.Accumulator
    assert type(made._sender) is sender.Sender


class _Client:
    """A broker that holds each request until the test answers it."""

    def __init__(self) -> None:
        self.cluster = _Cluster()
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
    return ProduceResponse_v7([(_TP.topic, [(number, error, 40, -1, 0) for number in partitions])], 0)


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
    first = await _add(accumulator, b"first")
    batches, answer = await client.next()
    assert list(batches) == [_TP.partition]
    others = [
        asyncio.shield(accumulator._append_batch(_batch(b"v"), TopicPartition(_TP.topic, n)).future) for n in (4, 5)
    ]
    await asyncio.sleep(0)
    assert client.requests.empty()
    answer.set_result(_acknowledged(_TP.partition))
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
    await asyncio.wait_for(producing.until_free(_TP), 5)
    for failure in (None, KafkaConnectionError()):
        acknowledged = await _add(accumulator, b"v")
        _, answer = await client.next()
        waiting = [asyncio.create_task(producing.until_free(TopicPartition(_TP.topic, n))) for n in (3, 4)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        if failure is None:
            answer.set_result(_acknowledged(_TP.partition))
        else:
            answer.set_exception(failure)
            _, answer = await client.next()
            answer.set_result(_acknowledged(_TP.partition))
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        await acknowledged


async def test_what_is_made_of_one_fetch_leaves_together(sending: tuple[_Client, Any]) -> None:
    """Batches of several partitions, a turn or two of the loop from one to the next; later ones have their own."""
    client, accumulator = sending
    acknowledged = []
    for number in range(4):
        tp = TopicPartition(_TP.topic, number)
        acknowledged.append(await accumulator.add_batch(_batch(b"v"), tp, 10.0))
        for _ in range(sender.GATHER_TURNS - 1):
            await asyncio.sleep(0)
    batches, answer = await client.next()
    assert sorted(batches) == [0, 1, 2, 3]
    late = await _add(accumulator, b"late")
    answer.set_result(_acknowledged(0, 1, 2, 3))
    await asyncio.gather(*acknowledged)
    _, answer = await client.next()
    answer.set_result(_acknowledged(_TP.partition))
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
        tp = TopicPartition(_TP.topic, number)
        acknowledged.append(await accumulator.add_batch(_batch(b"v"), tp, 10.0))
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
        tp = TopicPartition(_TP.topic, len(acknowledged))
        acknowledged.append(await accumulator.add_batch(_batch(b"v"), tp, 10.0))
        await asyncio.sleep(0)
    assert len(acknowledged) < (sender._GATHERED_MAX + 2) * sender.GATHER_TURNS
    while not all(future.done() for future in acknowledged):
        batches, answer = await client.next()
        answer.set_result(_acknowledged(*batches))
        await asyncio.gather(*(acknowledged[number] for number in batches))


async def test_a_request_that_fails_is_sent_again_before_what_came_behind(sending: tuple[_Client, Any]) -> None:
    """The log has a partition's batches in their order."""
    client, accumulator = sending
    acknowledged = [await _add(accumulator, value) for value in (b"first", b"second")]
    sent = []
    _, answer = await client.next()
    answer.set_exception(KafkaConnectionError())
    for _ in range(2):
        batches, answer = await client.next()
        sent.append(batches[_TP.partition])
        answer.set_result(_acknowledged(_TP.partition))
    assert b"first" in sent[0]
    assert b"second" in sent[1]
    await asyncio.gather(*acknowledged)


class _CountingBroker:
    """Takes a producer's batches of a partition only in the order of their numbers, as brokers do."""

    _client_id = "one"

    def __init__(self) -> None:
        self.cluster = _Cluster()
        self.error = 0
        self.taken = self.refused = 0
        self._producers = itertools.count()
        self._expected: defaultdict[tuple[int, int], int] = defaultdict(int)

    async def send(self, _node: int, request: Any, **_: Any) -> Any:
        """Name a producer, or take its batches."""
        if isinstance(request, InitProducerIdRequest):
            return SimpleNamespace(error_code=0, producer_id=next(self._producers), producer_epoch=0)
        [(_, partitions)] = request._topics
        answers = [(number, self._take(number, bytes(data)), 40, -1, 0) for number, data in partitions]
        return ProduceResponse_v7([(_TP.topic, answers)], 0)

    def _take(self, number: int, data: bytes) -> int:
        batch = MemoryRecords(data).next_batch()
        of_producer = batch.producer_id, number
        error = self.error or (0 if batch.base_sequence == self._expected[of_producer] else _OUT_OF_ORDER)
        if error:
            self.refused += 1
        else:
            self.taken += 1
            self._expected[of_producer] += len(list(batch))
        return error

    async def _maybe_wait_metadata(self) -> None:
        """It is there."""

    def get_random_node(self) -> int:
        """The one there is."""
        return 0

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """The leader is as before, which takes a moment to find out."""
        return asyncio.ensure_future(asyncio.sleep(0.01, True))


@pytest.fixture
async def numbering() -> AsyncIterator[tuple[_CountingBroker, Any]]:
    """A broker that counts, and the accumulator of an idempotent producer, whose batches live for 0.05 s."""
    broker = _CountingBroker()
    manager = TransactionManager(None, 1_000)
    accumulator = aiokafka_producer.MessageAccumulator(broker.cluster, 1_000, None, 0.05, txn_manager=manager)
    one = sender.Sender(
        broker,
        acks=-1,
        txn_manager=manager,
        message_accumulator=accumulator,
        retry_backoff_ms=1,
        request_timeout_ms=1_000,
    )
    await one.start()
    yield broker, accumulator
    one.sender_task.cancel()
    await asyncio.gather(one.sender_task, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of a broker that is no coroutine
            await asyncio.sleep(0.001)


async def _send(accumulator: Any) -> Any:
    return await (await _add(accumulator, b"v"))


async def test_a_batch_that_failed_for_good_takes_no_later_one_with_it(numbering: tuple[_CountingBroker, Any]) -> None:
    """A missing permission, for instance: its number is missing at the broker, too."""
    broker, accumulator = numbering
    assert (await _send(accumulator)).offset == 40
    broker.error = TopicAuthorizationFailedError.errno
    with pytest.raises(TopicAuthorizationFailedError):
        await _send(accumulator)
    broker.error = 0
    for _ in range(3):
        assert (await _send(accumulator)).offset == 40


@pytest.mark.parametrize("turns", range(12))
async def test_a_batch_may_fail_while_others_are_being_gathered(
    numbering: tuple[_CountingBroker, Any], turns: int
) -> None:
    """At whatever turn of the loop."""
    broker, accumulator = numbering
    broker.error = TopicAuthorizationFailedError.errno
    failing = await _add(accumulator, b"v")
    for _ in range(turns):
        await asyncio.sleep(0)
    other = await accumulator.add_batch(_batch(b"v"), TopicPartition(_TP.topic, 4), 10.0)
    await asyncio.wait([failing, other])
    assert isinstance(failing.exception(), TopicAuthorizationFailedError)
    broker.error = 0
    assert (await _send(accumulator)).offset == 40


async def test_of_events_none_is_sent_behind_one_that_failed(numbering: tuple[_CountingBroker, Any]) -> None:
    """The sender ends, and its process with it: readers would find the event behind those that follow it."""
    broker, accumulator = numbering
    accumulator.keeps_order = True
    assert (await _send(accumulator)).offset == 40
    broker.error = TopicAuthorizationFailedError.errno
    waiting = [await _add(accumulator, b"v") for _ in range(3)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    broker.error = 0
    await asyncio.wait(waiting)
    assert all(one.exception() is not None for one in waiting)
    assert broker.taken == 1
    with pytest.raises(KafkaError):
        await _send(accumulator)


async def test_a_batch_that_found_no_leader_in_time_has_no_number(numbering: tuple[_CountingBroker, Any]) -> None:
    broker, accumulator = numbering
    assert (await _send(accumulator)).offset == 40
    broker.cluster.leader = -1
    with pytest.raises(NotLeaderForPartitionError):
        await _send(accumulator)
    broker.cluster.leader = 0
    for _ in range(3):
        assert (await _send(accumulator)).offset == 40


async def test_a_numbered_batch_that_lost_its_leader_is_given_up_in_time(
    numbering: tuple[_CountingBroker, Any],
) -> None:
    """An order that nobody waits for any more must not be in the log hours later."""
    broker, accumulator = numbering
    broker.error = NotLeaderForPartitionError.errno
    lost = await _add(accumulator, b"v")
    await _until(lambda: broker.refused > 0)
    broker.cluster.leader = -1
    await asyncio.wait([lost], timeout=10)
    assert isinstance(lost.exception(), NotLeaderForPartitionError)
    broker.cluster.leader, broker.error = 0, 0
    for _ in range(3):
        assert (await _send(accumulator)).offset == 40


async def test_events_wait_for_their_leader(numbering: tuple[_CountingBroker, Any]) -> None:
    """However long it is away; none is given up, so that none is sent before it."""
    broker, accumulator = numbering
    accumulator.keeps_order = True
    broker.cluster.leader = -1
    waiting = await _add(accumulator, b"v")
    [[batch]] = accumulator._batches.values()
    await _until(lambda: batch._ttl > 1)
    assert not waiting.done()
    broker.cluster.leader = 0
    assert (await waiting).offset == 40


async def test_an_unexpected_error_ends_the_sender(sending: tuple[_Client, Any]) -> None:
    """What waits fails with it."""
    client, accumulator = sending
    acknowledged = await _add(accumulator, b"v")
    _, answer = await client.next()
    answer.set_exception(ZeroDivisionError())
    with pytest.raises(KafkaError, match="Unexpected error during batch delivery"):
        await asyncio.wait_for(acknowledged, 5)
