"""Imported by Python at the start of a worker under test: breaks one thing, once the file SABOTAGE names is there.

What is broken is the real code of a real process; everything around it is as in production.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

_FLAG = os.environ["SABOTAGE"]
_KIND = os.environ["SABOTAGE_KIND"]


def _is_on() -> bool:
    return Path(_FLAG).exists()


def _break_coordination() -> None:
    from aiokafka.consumer.group_coordinator import GroupCoordinator

    working = GroupCoordinator._coordination_routine

    async def routine(self: Any) -> None:
        task = asyncio.ensure_future(working(self))
        while not task.done():
            await asyncio.wait({task}, timeout=0.1)
            if _is_on():
                task.cancel()
                raise RuntimeError("sabotaged")
        task.result()

    GroupCoordinator._coordination_routine = routine


def _stop_delivery() -> None:
    from forkast_streams import limits, transport

    limits.STALL_S_MAX = 3.0
    working = transport.BatchConsumer._wait_next_records

    async def wait_next_records(self: Any, timeout: float) -> Any:  # noqa: ASYNC109
        if _is_on():
            await asyncio.sleep(0.1)
            return {}, set()
        return await working(self, timeout)

    transport.BatchConsumer._wait_next_records = wait_next_records


def _block_the_loop() -> None:
    import time

    from forkast_streams import limits, transport

    limits.LOOP_STALL_S_MAX = 3.0
    working = transport.BatchConsumer._wait_next_records

    async def wait_next_records(self: Any, timeout: float) -> Any:  # noqa: ASYNC109
        while _is_on():
            time.sleep(0.1)  # noqa: ASYNC251 - that is the sabotage
        return await working(self, timeout)

    transport.BatchConsumer._wait_next_records = wait_next_records


def _poison_matching() -> None:
    # Around the engine, which may be compiled and cannot be changed then.
    from agents.match_orders import OrderMatcher

    working = OrderMatcher.process

    async def process(self: Any, partition: int, engine: Any, records: Any) -> Any:
        if _is_on() and any(b'"poison"' in (record.value or b"") for record in records):
            raise ZeroDivisionError("an unexpected error in the engine")
        return await working(self, partition, engine, records)

    OrderMatcher.process = process


def _die_at_a_point_of_order_entry() -> None:
    """The point is what stands in the file; at an append two requests are waited for."""
    from forkast_streams.orders.command_log import CommandLog
    from forkast_streams.storage.postgres import Postgres

    arrived: list[object] = []

    def point() -> str | None:
        return Path(_FLAG).read_text() if _is_on() else None

    def die_with_second(*_: object) -> None:
        arrived.append(object())
        if len(arrived) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    async def die_with_two_in_hand() -> None:
        die_with_second()
        await asyncio.Event().wait()

    def dying(working: Any) -> Any:
        async def append(self: Any, *args: Any, **named: Any) -> Any:
            if point() == "claimed":
                await die_with_two_in_hand()
            if point() == "appended" and callable(args[-1]):
                # What would follow at once, without returning.
                args = *args[:-1], die_with_second
            answer = await working(self, *args, **named)
            if point() == "appended":
                await die_with_two_in_hand()
            return answer

        return append

    query = Postgres.query

    async def dying_query(self: Any, name: str, **parameters: Any) -> Any:
        statement = asyncio.ensure_future(query(self, name, **parameters))
        if name == "claim_client_ids" and point() == "claim sent":
            # Long enough for it to be on its way, too short for a server that hangs to refuse it.
            await asyncio.wait({statement}, timeout=0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return await statement

    CommandLog.append = dying(CommandLog.append)
    CommandLog.append_all = dying(CommandLog.append_all)
    Postgres.query = dying_query


{
    "coordination": _break_coordination,
    "delivery": _stop_delivery,
    "loop": _block_the_loop,
    "matching": _poison_matching,
    "order entry": _die_at_a_point_of_order_entry,
}[_KIND]()
