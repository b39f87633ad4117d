"""A steady load on the whole exchange, sent on time whoever is behind, and how far behind each role is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.flows import definitions, symbols
from benchmarks.harness import Run
from benchmarks.records import SymbolRecord
from benchmarks.servers import Servers, send, servers, worker
from forkast_streams.market_data.keys import SymbolKeys
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.records import OutputRecord
from forkast_streams.storage.postgres import Postgres
from forkast_streams.storage.redis import connect
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, PARTITIONS_DEFAULT, partition_for
from forkast_streams.wire_events import decode_event
from tests.integration.exchange import Worker, wait_until

STAGES = ("engine", "sink", "keeper")
# What the first seconds of a load say is how fast caches fill.
SETTLED_S = 5.0
_ROLES = (*STAGES, "oms")
# How often the load is sent: a batch a partition each time.
_TICK_S = 0.02
_LOOK_S = 0.25
_DRAIN_S_MAX = 180.0

# A place in each partition.
Positions = list[int]
# What is sent at one moment: by partition.
Tick = dict[int, list[OutputRecord]]


class Lag:
    """How long ago a log ended where its reader is now."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, Positions]] = deque()

    def seconds(self, now: float, ends: Positions, reached: Positions) -> float:
        """That of the partition whose reader is furthest behind; ``ends`` are those of the log at ``now``."""
        self._ends.append((now, ends))
        while len(self._ends) > 1 and _has_reached(reached, self._ends[1][1]):
            self._ends.popleft()
        return 0.0 if _has_reached(reached, ends) else now - self._ends[0][0]


def _has_reached(reached: Positions, ends: Positions) -> bool:
    return all(position >= end for position, end in zip(reached, ends, strict=True))


@dataclass(slots=True)
class Looks:
    """What was seen of the roles: lags in seconds by role, at ``times``."""

    times: list[float] = field(default_factory=list)
    lags: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def worst(self, stage: str) -> float:
        """The longest lag of a role, the first seconds aside."""
        return max(lag for at, lag in zip(self.times, self.lags[stage], strict=True) if at >= SETTLED_S)


class _Watcher:
    """Sees how far the roles are: by the newest events, the sink's progress and the books in Redis."""

    def __init__(self, at: Servers) -> None:
        self._postgres = Postgres(at.env["DATABASE_URL"], connections=1)
        self._redis = connect(at.env["REDIS_URL"])
        self._consumer = AIOKafkaConsumer(bootstrap_servers=at.brokers, fetch_max_wait_ms=20)
        self._tps = {
            topic: [TopicPartition(topic, partition) for partition in range(PARTITIONS_DEFAULT)]
            for topic in (ORDERS_NEW, ORDERS_EXCHANGE)
        }
        self._lags = {stage: Lag() for stage in STAGES}
        # Offsets that the newest event of each partition answers, and its sequence.
        self._answered = [0] * PARTITIONS_DEFAULT
        self._sequences = [0] * PARTITIONS_DEFAULT

    async def __aenter__(self) -> _Watcher:
        """Connect."""
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self._postgres)
        self._stack.push_async_callback(self._redis.aclose)
        await self._consumer.start()
        self._stack.push_async_callback(self._consumer.stop)
        self._consumer.assign(self._tps[ORDERS_EXCHANGE])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._stack.aclose()

    async def lags(self) -> dict[str, float]:
        """Seconds by role."""
        now = time.perf_counter()
        commands, events = await self._ends(ORDERS_NEW), await self._ends(ORDERS_EXCHANGE)
        await self._read_newest(events)
        sequences = list(self._sequences)
        return {
            "engine": self._lags["engine"].seconds(now, commands, self._answered),
            "sink": self._lags["sink"].seconds(now, events, await self._written()),
            "keeper": self._lags["keeper"].seconds(now, sequences, await self._published()),
        }

    async def _ends(self, topic: str) -> Positions:
        ends = await self._consumer.end_offsets(self._tps[topic])
        return [int(ends[tp]) for tp in self._tps[topic]]

    async def _read_newest(self, events: Positions) -> None:
        missing = {}
        for tp, end in zip(self._tps[ORDERS_EXCHANGE], events, strict=True):
            if end:
                self._consumer.seek(tp, end - 1)
                missing[tp] = end
        while missing:
            for tp, records in (await self._consumer.getmany(*missing, timeout_ms=200)).items():
                event = decode_event(records[-1].value)
                self._answered[tp.partition] = event.source.offset + 1
                self._sequences[tp.partition] = event.sequence
                missing.pop(tp, None)

    async def _written(self) -> Positions:
        rows = await self._postgres.fetch('SELECT partition, "nextOffset" FROM "SinkProgress"')
        found: dict[int, int] = dict(rows)
        return [int(found.get(partition, 0)) for partition in range(PARTITIONS_DEFAULT)]

    async def _published(self) -> Positions:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for symbol_id in symbols():
                pipeline.hget(SymbolKeys.of(symbol_id).meta, "sequence")
            return [int(sequence or 0) for sequence in await pipeline.execute()]


@contextmanager
def all_roles(
    run: Run, before: Callable[[Servers], Coroutine[Any, Any, None]] | None = None
) -> Iterator[tuple[Servers, dict[str, Worker]]]:
    """Servers with a running worker of each role, and the symbols defined; ``before`` is called with the servers."""
    with servers(run) as at, ExitStack() as stack:
        if before is not None:
            asyncio.run(before(at))
        roles = {role: stack.enter_context(worker(at, role)) for role in _ROLES}
        asyncio.run(send(at, ORDERS_NEW, definitions()))
        for one in roles.values():
            one.start()
        for role, one in roles.items():
            wait_until(one.is_ready, f"{role} getting ready")
        yield at, roles


def ticks_of(flow: Iterator[SymbolRecord], rate: int, seconds: float) -> Iterator[Tick]:
    """What to send of ``flow`` at each moment, for ``rate`` commands a second."""
    return (_tick(islice(flow, round(rate * _TICK_S))) for _ in range(round(seconds / _TICK_S)))


def _tick(records: islice[SymbolRecord]) -> Tick:
    tick: Tick = {}
    for symbol_id, value in records:
        record = OutputRecord(b"%d" % symbol_id, value, 0)
        tick.setdefault(partition_for(symbol_id, PARTITIONS_DEFAULT), []).append(record)
    return tick


async def load(
    at: Servers,
    workers: Iterable[Worker],
    ticks: Iterable[Tick],
    done: Callable[[float], None],
    on_look: Callable[[float], None] | None = None,
) -> tuple[Looks, float]:
    """Send ``ticks``, each at its time, and look at the roles meanwhile; return also the seconds it took.

    ``on_look`` is called with the seconds since the start at each look.
    """
    looks, started = Looks(), time.perf_counter()
    async with _Watcher(at) as watcher, EventProducer(at.brokers) as producer:
        is_over = False

        async def look() -> None:
            while not is_over:
                lags = await watcher.lags()
                looks.times.append(time.perf_counter() - started)
                for stage, lag in lags.items():
                    looks.lags[stage].append(lag)
                for one in workers:
                    one.check()
                if on_look is not None:
                    on_look(looks.times[-1])
                await asyncio.sleep(_LOOK_S)

        looking = asyncio.create_task(look())
        sent: deque[SentBatch] = deque()
        started = time.perf_counter()
        for number, tick in enumerate(ticks):
            await asyncio.sleep(max(0.0, started + number * _TICK_S - time.perf_counter()))
            for partition, records in tick.items():
                sent += await producer.send_batch(ORDERS_NEW, partition, records)
            while sent and sent[0].acknowledged.done():
                sent.popleft().acknowledged.result()
            if looking.done():
                looking.result()
            done(number * _TICK_S)
        for batch in sent:
            await batch.acknowledged
        took = time.perf_counter() - started
        # Not cancelled: Python 3.11's wait_for, inside of aiokafka, forgets that when its answer comes just then.
        is_over = True
        await looking
        await _drain(watcher)
    return looks, took


async def _drain(watcher: _Watcher) -> None:
    deadline = time.monotonic() + _DRAIN_S_MAX
    while max((await watcher.lags()).values()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the roles have not caught up within {_DRAIN_S_MAX:g} s")
        await asyncio.sleep(_LOOK_S)
