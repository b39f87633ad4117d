"""Sending: a worker goes on while several batches of a partition wait for their requests, up to a bound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError, ProducerClosed
from aiokafka.producer import producer as aiokafka_producer
from aiokafka.producer.message_accumulator import BatchBuilder

from forkast_streams import producer

_TP = TopicPartition("orders.exchange", 3)


class _Cluster:
    """Knows one broker."""

    def leader_for_partition(self, _tp: TopicPartition) -> int:
        """The broker."""
        return 0


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
    acknowledged = [await _add(accumulator, b"%d" % number) for number in range(producer._BATCHES_WAITING_MAX)]
    assert len({id(future) for future in acknowledged}) == producer._BATCHES_WAITING_MAX
    left = []
    while accumulator._batches:
        nodes, _ = accumulator.drain_by_nodes(ignore_nodes=set())
        left.append(_data(nodes)[-2:-1])
    assert left == [b"%d" % number for number in range(producer._BATCHES_WAITING_MAX)]


async def test_a_batch_too_many_waits_until_there_is_room() -> None:
    """Or until its time is over."""
    accumulator = _accumulator()
    for _ in range(producer._BATCHES_WAITING_MAX):
        await _add(accumulator, b"v")
    with pytest.raises(KafkaTimeoutError):
        await _add(accumulator, b"v", within_s=0.01)
    late = asyncio.create_task(_add(accumulator, b"late"))
    await asyncio.sleep(0)
    assert not late.done()
    accumulator.drain_by_nodes(ignore_nodes=set())
    await late
    assert len(accumulator._batches[_TP]) == producer._BATCHES_WAITING_MAX


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


async def test_producers_have_this_accumulator() -> None:
    """Nobody else makes them."""
    made = AIOKafkaProducer()
    await made.stop()
    assert type(made._message_accumulator) is producer._Accumulator
