"""Puts commands into ``orders.new`` and says when the log has them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

from aiokafka.errors import KafkaError

from forkast_streams.errors import ApiError
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.topics import ORDERS_NEW, partition_for

# The producer gives a record up later than this: whether the log gets it is unknown then.
_SEND_S_MAX = 8.0

SymbolCommand = tuple[int, bytes]


class CommandLog:
    """The log as the OMS writes it."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer
        self._partitions = 0

    async def append(self, symbol_id: int, command: bytes) -> int:
        """Return the log's time of the command, in milliseconds, once the log has acknowledged it.

        Raises:
            ApiError: 503, it has not, and whether it will is unknown.
        """
        try:
            async with asyncio.timeout(_SEND_S_MAX):
                partition = partition_for(symbol_id, await self._partition_count())
                metadata = await self._producer.send(
                    ORDERS_NEW, key=b"%d" % symbol_id, value=command, partition=partition
                )
        except (KafkaError, TimeoutError, OSError, RuntimeError) as exc:
            raise _unknown() from exc
        return int(metadata.timestamp)

    async def append_all(self, commands: Sequence[SymbolCommand]) -> list[int | ApiError]:
        """Append commands at once, those of a symbol in their order; tell of each its time, or that it is unknown."""
        now_ms = int(time.time() * 1000)
        answers: list[int | ApiError] = [_unknown()] * len(commands)
        try:
            partitions = await self._partition_count()
        except (KafkaError, TimeoutError, OSError, RuntimeError):
            return answers
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, (symbol_id, _) in enumerate(commands):
            places[partition_for(symbol_id, partitions)].append(place)

        async def send(partition: int, mine: list[int]) -> None:
            records = [OutputRecord(b"%d" % commands[place][0], commands[place][1], now_ms) for place in mine]
            sent = await self._producer.send_batch(ORDERS_NEW, partition, records)
            first = 0
            for batch in sent:
                metadata = await batch.acknowledged
                answers_of_batch = [int(metadata.timestamp)] * batch.count
                for place, answer in zip(mine[first : first + batch.count], answers_of_batch, strict=True):
                    answers[place] = answer
                first += batch.count

        try:
            async with asyncio.timeout(_SEND_S_MAX):
                await asyncio.gather(*[send(*group) for group in places.items()], return_exceptions=True)
        except TimeoutError:
            pass
        return answers

    async def _partition_count(self) -> int:
        if not self._partitions:
            async with asyncio.timeout(_SEND_S_MAX):
                self._partitions = await self._producer.partition_count(ORDERS_NEW)
        return self._partitions


def _unknown() -> ApiError:
    message = (
        "the log did not acknowledge in time, and whether it has the request is unknown; look for the order before "
        "you send it again, or give orders a clientOrderId, which makes a retry safe"
    )
    return ApiError(503, "LOG_UNAVAILABLE", message, headers={"Retry-After": "2"})
