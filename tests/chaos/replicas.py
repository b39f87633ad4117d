"""What happens to one of three brokers, while two of them have what was acknowledged."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from forkast_streams.topics import ORDERS_NEW
from tests.chaos.cluster import BROKERS, Broker
from tests.chaos.exchange import Exchange
from tests.chaos.scenario import Chaos

_IN_SYNC_S_MAX = 90.0


async def kill_each(chaos: Chaos, *, lose_disks: bool) -> None:
    """Kill one after the other, each once the one before has everything again.

    With ``lose_disks`` each starts with an empty disk: in the end none has what it had.
    """
    async for name, broker in _one_by_one(chaos):
        since = time.monotonic()
        await chaos.exchange.signal_server(name, signal.SIGKILL)
        if lose_disks:
            broker.lose_disk()
        await chaos.recovers(since)
        await chaos.exchange.start_server(name)


async def freeze_each(chaos: Chaos) -> None:
    """Let one after the other be silent, with its connections open, and then wake up as the leader it is no more."""
    async for name, _ in _one_by_one(chaos):
        since = time.monotonic()
        await chaos.exchange.signal_server(name, signal.SIGSTOP)
        try:
            await chaos.recovers(since)
            await asyncio.sleep(max(0.0, since + chaos.seconds(20) - time.monotonic()))
        finally:
            await chaos.exchange.signal_server(name, signal.SIGCONT)


async def _one_by_one(chaos: Chaos) -> AsyncIterator[tuple[str, Broker]]:
    """The brokers, each while it leads something and all have everything; after the last one it is so again."""
    for name in chaos.chance.sample(BROKERS, len(chaos.rounds(len(BROKERS)))):
        leaders = await _leaders_when_in_sync(chaos.exchange)
        broker = chaos.exchange.server(name)
        assert isinstance(broker, Broker), "a scenario of three brokers"
        if broker.number not in leaders:
            chaos.violations.append(f"{name} leads no partition of {ORDERS_NEW}, so its end shows nothing: {leaders}")
        yield name, broker
        await _leaders_when_in_sync(chaos.exchange)
        await chaos.recovers()


async def _leaders_when_in_sync(exchange: Exchange) -> list[int]:
    """Wait until each broker has all that was acknowledged; return who leads the partitions of the input."""
    looks = 0
    async with asyncio.timeout(_IN_SYNC_S_MAX):
        while True:
            topics = await _describe(exchange)
            partitions = [partition for topic in topics for partition in topic["partitions"]]
            is_in_sync = bool(partitions) and all(len(partition["isr"]) == len(BROKERS) for partition in partitions)
            looks = looks + 1 if is_in_sync else 0
            # A broker that has just woken up may tell what was so before.
            if looks == 3:
                inputs = [topic["partitions"] for topic in topics if topic["topic"] == ORDERS_NEW]
                return [partition["leader"] for of_topic in inputs for partition in of_topic]
            await asyncio.sleep(0.3)


async def _describe(exchange: Exchange) -> list[dict[str, Any]]:
    """What a broker says of all topics; nothing if it does not answer."""
    admin = AIOKafkaAdminClient(bootstrap_servers=exchange.env["KAFKA_BROKERS"])
    with suppress(KafkaError, OSError):
        try:
            await admin.start()
            topics: list[dict[str, Any]] = await admin.describe_topics()
            return topics
        finally:
            await admin.close()
    return []
