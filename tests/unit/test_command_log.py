"""Commands on their way into the log: what comes together goes together, and nobody waits in vain or twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import RecordMetadata, TopicPartition

from forkast_streams.errors import ApiError
from forkast_streams.orders import command_log
from forkast_streams.orders.command_log import CommandLog
from forkast_streams.producer import SentBatch
from forkast_streams.records import OutputRecord
from forkast_streams.topics import ORDERS_NEW, partition_for


class _Producer:
    """Takes batches of up to ``batch`` records and acknowledges them when it is told to."""

    def __init__(self, *, batch: int = 100, partitions: int = 1) -> None:
        self.sent: list[tuple[int, list[bytes | None]]] = []
        self.unacknowledged: list[tuple[asyncio.Future[RecordMetadata], int]] = []
        self.free = asyncio.Event()
        self.free.set()
        self._batch = batch
        self._partitions = partitions

    async def partition_count(self, topic: str) -> int:
        assert topic == ORDERS_NEW
        return self._partitions

    async def until_free(self, topic: str, _partition: int) -> None:
        assert topic == ORDERS_NEW
        await self.free.wait()

    async def send_batch(self, topic: str, partition: int, records: Iterable[OutputRecord]) -> list[SentBatch]:
        assert topic == ORDERS_NEW
        values = [record.value for record in records]
        sent = []
        for at in range(0, len(values), self._batch):
            part = values[at : at + self._batch]
            self.sent.append((partition, part))
            future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
            self.unacknowledged.append((future, partition))
            sent.append(SentBatch(future, len(part)))
        return sent

    def acknowledge(self, timestamp: int) -> None:
        future, partition = self.unacknowledged.pop(0)
        tp = TopicPartition(ORDERS_NEW, partition)
        future.set_result(RecordMetadata(ORDERS_NEW, partition, tp, 0, timestamp, 1, 0))

    def refuse(self) -> None:
        self.unacknowledged.pop(0)[0].set_exception(KafkaConnectionError("gone"))


def _log(producer: _Producer) -> CommandLog:
    return CommandLog(cast("Any", producer))


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_comes_while_the_broker_is_busy_goes_together() -> None:
    """With a command of any partition: a batch is closed only when it can leave."""
    producer = _Producer()
    log = _log(producer)
    producer.free.clear()
    waiting = []
    for value in (b"a", b"b", b"c"):
        waiting.append(asyncio.create_task(log.append(1, value)))
        await _settle()
    assert not producer.sent
    producer.free.set()
    await _settle()
    assert producer.sent == [(0, [b"a", b"b", b"c"])]
    producer.acknowledge(7)
    assert await asyncio.gather(*waiting) == [7, 7, 7]


async def test_a_command_goes_at_once_and_those_that_come_meanwhile_go_together() -> None:
    producer = _Producer()
    log = _log(producer)
    first = asyncio.create_task(log.append(1, b"a"))
    await _settle()
    assert producer.sent == [(0, [b"a"])]
    others = [asyncio.create_task(log.append(1, value)) for value in (b"b", b"c", b"d")]
    await _settle()
    assert len(producer.sent) == 1, "one batch is on its way"
    producer.acknowledge(7)
    assert await first == 7
    await _settle()
    assert producer.sent[1:] == [(0, [b"b", b"c", b"d"])]
    producer.acknowledge(8)
    assert await asyncio.gather(*others) == [8, 8, 8]


async def test_a_batch_of_commands_is_taken_when_its_last_one_is() -> None:
    producer = _Producer(batch=2)
    log = _log(producer)
    answers = asyncio.create_task(log.append_all([(1, b"a"), (1, b"b"), (1, b"c")]))
    await _settle()
    assert [values for _, values in producer.sent] == [[b"a", b"b"], [b"c"]]
    producer.acknowledge(1)
    await _settle()
    assert not answers.done()
    producer.acknowledge(2)
    assert await answers == [2, 2, 2]


async def test_commands_of_other_partitions_wait_for_nobody() -> None:
    producer = _Producer(partitions=10)
    log = _log(producer)
    symbols = {partition_for(symbol_id, 10): symbol_id for symbol_id in range(1, 100)}
    answers = asyncio.create_task(log.append_all([(symbols[0], b"a"), (symbols[1], b"b"), (symbols[0], b"c")]))
    await _settle()
    assert producer.sent == [(0, [b"a", b"c"]), (1, [b"b"])]
    producer.acknowledge(3)
    producer.refuse()
    known, unknown, also_known = await answers
    assert (known, also_known) == (3, 3)
    assert isinstance(unknown, ApiError)
    assert unknown.status == 503


async def test_what_the_log_refuses_is_unknown_and_the_next_command_is_tried() -> None:
    producer = _Producer()
    log = _log(producer)
    first = asyncio.create_task(log.append(1, b"a"))
    await _settle()
    second = asyncio.create_task(log.append(1, b"b"))
    await _settle()
    producer.refuse()
    with pytest.raises(ApiError, match="unknown"):
        await first
    await _settle()
    producer.acknowledge(5)
    assert await second == 5


async def test_a_command_that_nobody_waits_for_any_more_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_log, "_SEND_S_MAX", 0.05)
    producer = _Producer()
    log = _log(producer)
    first = asyncio.create_task(log.append(1, b"a"))
    await _settle()
    second = asyncio.create_task(log.append(1, b"b"))
    with pytest.raises(ApiError):
        await second
    with pytest.raises(ApiError):
        await first
    producer.acknowledge(1)
    await _settle()
    third = asyncio.create_task(log.append(1, b"c"))
    await _settle()
    assert [values for _, values in producer.sent] == [[b"a"], [b"c"]]
    producer.acknowledge(2)
    assert await third == 2


async def test_what_is_refused_while_the_log_is_away_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that lasts."""
    monkeypatch.setattr(command_log, "_SEND_S_MAX", 0.01)
    producer = _Producer()
    log = _log(producer)
    for _ in range(5):
        answers = await asyncio.gather(*(log.append(1, b"a") for _ in range(10)), return_exceptions=True)
        assert all(isinstance(answer, ApiError) for answer in answers)
    [partition] = log._partitions
    assert len(partition._waiting) <= 10


async def test_what_follows_an_acknowledgement_is_waited_for_as_well() -> None:
    """It begins with the log's time of the command, not before, and not for a command that nobody waits for."""
    producer = _Producer()
    log = _log(producer)
    begun: list[tuple[int, asyncio.Future[Any]]] = []

    def then(appended_ms: int, followed: asyncio.Future[Any]) -> None:
        begun.append((appended_ms, followed))

    first, gone = (asyncio.create_task(log.append(1, value, then)) for value in (b"a", b"b"))
    await _settle()
    gone.cancel()
    await _settle()
    assert not begun
    while producer.unacknowledged:
        producer.acknowledge(7)
        await _settle()
    [(appended_ms, followed)] = begun
    assert (appended_ms, first.done()) == (7, False)
    followed.set_result("done")
    assert await first == "done"
