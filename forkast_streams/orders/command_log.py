"""Puts commands into ``orders.new`` and says when the log has them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError

from forkast_streams.deadlines import Deadlines
from forkast_streams.errors import ApiError
from forkast_streams.limits import COMMAND_LATE_S_MAX
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.topics import ORDERS_NEW, partition_for

# The producer gives a record up later than this, see `COMMAND_SEND_S_MAX`: whether the log gets it is unknown then.
_SEND_S_MAX = 8.0
_COUNT_S_MAX = 2.0
# How far the clocks of the log, of Postgres and of this process may be apart.
_CLOCKS_APART_S = 10.0
# How the producer says that the log does not take a record.
_LOG_AWAY = (KafkaError, TimeoutError, OSError, RuntimeError)

SymbolCommand = tuple[int, bytes]
# Called with the log's time of a command, in milliseconds, and the future that it gives a result to in the end.
Then = Callable[[int, "asyncio.Future[Any]"], None]


class CommandLog:
    """The log as the OMS writes it."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer
        self._partitions: list[_PartitionWriter] = []
        self._deadlines = Deadlines()

    async def append(
        self, symbol_id: int, command: bytes, then: Then | None = None, *, order_id: str | None = None
    ) -> Any:
        """Return the log's time of the command, in milliseconds, once the log has acknowledged it.

        With ``then`` that is called at this point, and what it gives the future is returned: whoever waits for one
        thing after the other is woken once. ``order_id``, of an order that is placed, stands in the error.

        Raises:
            ApiError: 503, it has not, and whether it will is unknown.
        """
        try:
            if self._partitions:
                return await self._append(symbol_id, command, then)
            async with asyncio.timeout(_SEND_S_MAX):
                await self._connect()
                return await self._append(symbol_id, command, then)
        except _LOG_AWAY as exc:
            raise not_acknowledged(order_id) from exc

    async def append_all(self, commands: Sequence[SymbolCommand]) -> list[int | ApiError]:
        """Append commands at once, those of a symbol in their order; tell of each its time, or that it is unknown."""
        answers: list[int | ApiError] = [not_acknowledged()] * len(commands)
        if not commands:
            return answers
        try:
            partitions = self._partitions or await self._connect()
        except _LOG_AWAY:
            return answers
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, (symbol_id, _) in enumerate(commands):
            places[partition_for(symbol_id, len(partitions))].append(place)

        appended = {
            partitions[partition].append([_record(*commands[place]) for place in mine]): mine
            for partition, mine in places.items()
        }
        try:
            await asyncio.wait(appended)
        finally:
            # Who goes takes back what is not on its way.
            for one in appended:
                one.cancel()
        for one, mine in appended.items():
            if not one.cancelled() and one.exception() is None:
                for place in mine:
                    answers[place] = one.result()
        return answers

    async def count_since(self, symbol_id: int, age_s: float) -> int:
        """How many records the symbol's partition has taken in the last ``age_s`` seconds; never too few.

        Raises:
            ApiError: 503, the log does not tell.
        """
        since_ms = int((time.time() - age_s - _CLOCKS_APART_S) * 1000)
        try:
            async with asyncio.timeout(_COUNT_S_MAX):
                partitions = self._partitions or await self._connect()
                partition = partition_for(symbol_id, len(partitions))
                return await self._producer.count_since(ORDERS_NEW, partition, since_ms)
        except _LOG_AWAY as exc:
            raise not_acknowledged() from exc

    def _append(self, symbol_id: int, command: bytes, then: Then | None) -> asyncio.Future[Any]:
        partition = self._partitions[partition_for(symbol_id, len(self._partitions))]
        return partition.append([_record(symbol_id, command)], then)

    async def _connect(self) -> list[_PartitionWriter]:
        async with asyncio.timeout(_SEND_S_MAX):
            count = await self._producer.partition_count(ORDERS_NEW)
        if not self._partitions:
            self._partitions = [
                _PartitionWriter(self._producer, partition, self._deadlines) for partition in range(count)
            ]
        return self._partitions


@dataclass(slots=True)
class _Waiting:
    """Records that come one after the other, who waits for the log's time of them, and what is to be done before."""

    records: list[OutputRecord]
    appended_ms: asyncio.Future[Any]
    then: Then | None

    def is_over(self) -> bool:
        """Whether it is known what became of them, or nobody waits any more."""
        return self.appended_ms.done()

    def taken(self, appended_ms: int) -> None:
        """The log has them."""
        if self.appended_ms.done():
            return
        if self.then is None:
            self.appended_ms.set_result(appended_ms)
        else:
            self.then(appended_ms, self.appended_ms)

    def expire(self) -> None:
        """Tell who waits that it took too long."""
        self.appended_ms.set_exception(TimeoutError())


class _PartitionWriter:
    """Writes to one partition as databases commit groups: what comes while a batch is on its way is the next batch.

    A record by itself costs the producer as much as everything else about an order; and it waits for nobody when no
    batch is on its way.
    """

    def __init__(self, producer: EventProducer, partition: int, deadlines: Deadlines) -> None:
        self._producer = producer
        self._partition = partition
        self._deadlines = deadlines
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    def append(self, records: list[OutputRecord], then: Then | None = None) -> asyncio.Future[Any]:
        """Append ``records`` in a row; the future is done in time.

        Who cancels it before they are on their way takes them back.
        """
        appended_ms = asyncio.get_running_loop().create_future()
        waiting = _Waiting(records, appended_ms, then)
        # While the log takes nothing, what is refused must not pile up.
        while self._waiting and self._waiting[0].is_over():
            self._waiting.popleft()
        self._waiting.append(waiting)
        self._deadlines.limit(waiting, _SEND_S_MAX)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())
        return appended_ms

    async def _write_all(self) -> None:
        while self._waiting:
            # A batch is closed when it is handed over; whatever comes before it can leave belongs into it.
            await self._producer.until_free(ORDERS_NEW, self._partition)
            group = [one for one in self._waiting if not one.is_over()]
            self._waiting.clear()
            try:
                await self._write(group)
            except Exception as exc:
                for one in group:
                    if not one.appended_ms.done():
                        one.appended_ms.set_exception(exc)

    async def _write(self, group: list[_Waiting]) -> None:
        records: list[OutputRecord] = []
        ends = []
        for one in group:
            records += one.records
            ends.append(len(records))
        written = told = 0
        for batch in await self._producer.send_batch(ORDERS_NEW, self._partition, records):
            metadata = await batch.acknowledged
            written += batch.count
            while told < len(group) and ends[told] <= written:
                group[told].taken(int(metadata.timestamp))
                told += 1


def _record(symbol_id: int, command: bytes) -> OutputRecord:
    return OutputRecord(b"%d" % symbol_id, command, int(time.time() * 1000))


def not_acknowledged(order_id: str | None = None) -> ApiError:
    """The error that nobody knows whether the log has a command, or gets it yet."""
    message = (
        "the log did not acknowledge in time, and whether it has the request is unknown: it may still come into it for "
        f"{COMMAND_LATE_S_MAX} s; look for the order before you send it again, or give orders a clientOrderId, which "
        "makes a retry safe"
    )
    return ApiError(503, "LOG_UNAVAILABLE", message, order_id=order_id, headers={"Retry-After": "2"})
