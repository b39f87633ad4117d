"""A consumer's fetcher, and a broker whose answers the test gives."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol.fetch import FetchResponse_v11
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from forkast_streams.kafka_client import PacedFetcher, RawTopics

TOPIC, CHANGELOG = "orders.new", "changelog"
FIRST, SECOND, OF_CHANGELOG = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1), TopicPartition(CHANGELOG, 0)


# Of a batch in the log: where its leader's epoch is, and where its attributes begin, which its checksum covers with all
# behind them, and two of them.
_LEADER_EPOCH_AT = 12
_ATTRIBUTES_AT = 21
_RECORDS_AT = 61
CONTROL, GZIP = 0x20, 0x01


def records_at(
    first: int,
    *values: bytes,
    attributes: int = 0,
    time_ms: int = 1_000,
    header: bytes | None = None,
    leader_epoch: int = 0,
) -> bytes:
    """A batch; ``header`` is the name, of four bytes, of one that its records have."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 16)
    for number, value in enumerate(values):
        builder.append(number, time_ms, b"7", value, [] if header is None else [("name", b"v")])
    batch = bytearray(builder.build())
    if header is not None:
        batch = batch.replace(b"name", header)
    batch[:8] = first.to_bytes(8, "big")
    batch[_LEADER_EPOCH_AT : _LEADER_EPOCH_AT + 4] = leader_epoch.to_bytes(4, "big")
    batch[_ATTRIBUTES_AT : _ATTRIBUTES_AT + 2] = attributes.to_bytes(2, "big")
    batch[_ATTRIBUTES_AT - 4 : _ATTRIBUTES_AT] = calc_crc32c(bytes(batch[_ATTRIBUTES_AT:])).to_bytes(4, "big")
    return bytes(batch)


def packed(batch: bytes) -> bytes:
    """The same with its records packed by gzip."""
    header, records = bytearray(batch[:_RECORDS_AT]), gzip.compress(batch[_RECORDS_AT:])
    header[8:12] = (_RECORDS_AT - 12 + len(records)).to_bytes(4, "big")
    header[_ATTRIBUTES_AT + 1] |= GZIP
    header[_ATTRIBUTES_AT - 4 : _ATTRIBUTES_AT] = calc_crc32c(bytes(header[_ATTRIBUTES_AT:]) + records).to_bytes(
        4, "big"
    )
    return bytes(header) + records


class Cluster:
    """Knows one broker for all partitions, or none."""

    leader: int | None = 1

    def leader_for_partition(self, _tp: TopicPartition) -> int | None:
        """The broker."""
        return self.leader


class _Connection:
    """A connection to a broker."""

    is_open = True

    def connected(self) -> bool:
        """Whether it is."""
        return self.is_open


class Client:
    """A broker: holds each fetch until the test answers it."""

    _metadata_max_age_ms = 1_000

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.cluster = Cluster()
        self.fetches: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.looked_for_leaders = 0
        self._conns: dict[tuple[int, ConnectionGroup], _Connection] = {}

    def disconnect(self) -> None:
        """The broker goes away, and is there again."""
        for one in self._conns.values():
            one.is_open = False

    async def send(self, node: int, request: Any) -> Any:
        """Fetch, over a new connection where there is none."""
        of_node = node, ConnectionGroup.DEFAULT
        if of_node not in self._conns or not self._conns[of_node].is_open:
            self._conns[of_node] = _Connection()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.fetches.put_nowait((request, answer))
        return await answer

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """Look for the partitions' brokers, and find them."""
        self.looked_for_leaders += 1
        self.cluster.leader = 1
        found: asyncio.Future[bool] = self._loop.create_future()
        found.set_result(True)
        return found

    async def next(self) -> tuple[dict[TopicPartition, int], Callable[..., None]]:
        """The next fetch: the places it reads from, and how to answer it."""
        request, answer = await asyncio.wait_for(self.fetches.get(), 5)
        asked = {TopicPartition(topic, number): at for topic, parts in request.topics for number, at, _ in parts}

        def reply(*, error: int = 0, of: TopicPartition | None = None, end: int = 9, **records: bytes) -> None:
            topics: dict[str, list[tuple[Any, ...]]] = {}
            for tp in asked:
                found = records.get(f"p{tp.partition}", b"") if tp.topic == TOPIC else b""
                code = error if tp == of else 0
                topics.setdefault(tp.topic, []).append((tp.partition, code, end, end, 0, None, -1, found))
            answer.set_result(FetchResponse_v11(0, 0, 0, list(topics.items())))

        def fail(exc: Exception) -> None:
            self.disconnect()
            answer.set_exception(exc)

        reply.fail = fail  # type: ignore[attr-defined]
        return asked, reply


class Consumer:
    """A fetcher of three partitions, read from offset 5 on."""

    def __init__(self) -> None:
        self.client = Client()
        self.subscriptions = SubscriptionState()
        self.subscriptions.assign_from_user({FIRST, SECOND, OF_CHANGELOG})
        self.assignment = self.subscriptions.subscription.assignment
        for tp in self.assignment.tps:
            self.assignment.state_value(tp).reset_to(5)
        self.fetcher = PacedFetcher(
            self.client, self.subscriptions, value_deserializer=RawTopics({TOPIC}), retry_backoff_ms=1
        )

    def ask(self, *tps: TopicPartition) -> asyncio.Task[dict[TopicPartition, list[Any]]]:
        """Ask for records."""
        return asyncio.create_task(self.fetcher.fetched_records(set(tps), timeout=5))
