"""How a worker ends: in time when it is asked to, and by itself when it can do its work no more.

A worker that neither works nor ends keeps its partitions from every other one. So each way to hang ends the process
with a sentence in the log, and the supervisor starts it again: a stop that takes too long, a dead part of the Kafka
client, records that wait while nothing is handled, and an event loop that does not turn.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from faust.types import TP
from mode import Service

from forkast_streams.failfast import fail_fast
from forkast_streams.kafka_security import kafka_arguments
from forkast_streams.limits import LOOP_STALL_S_MAX, STALL_S_MAX, STOP_S_MAX

log = logging.getLogger(__name__)

# sysexits.h: something outside is missing, try again later.
CUT_STATUS = 75

_LOOK_INTERVAL_S = 1.0
_PROBE_INTERVAL_S = 5.0
_PROBE_S_MAX = 5.0
# From one sample to the next, with a client that is made and closed; the event loop is watched by itself.
_SAMPLE_GAP_S_MAX = 20.0
# Of the probe's time, until the ends that are known are looked at without the others.
_ENDS_S_MAX = 3.0


class Stalled(RuntimeError):
    """A worker that should make progress makes none."""


def cut_stop(seconds: float) -> NoReturn:
    """End the process although its stop is not complete; what is not committed is processed again."""
    log.critical(
        "The worker did not stop within %g s (is Kafka away?) and ends now; what was not committed is processed again "
        "to the same events.",
        seconds,
    )
    logging.shutdown()
    os._exit(CUT_STATUS)


class ExchangeWorker(faust.Worker):
    """A worker whose stop has an end: aiokafka would try to commit and to leave for as long as Kafka is away."""

    def _schedule_shutdown(self, signal: Any) -> None:
        if not self._signal_stop_time:
            # A thread, because what holds up the stop may hold up the event loop as well.
            cutter = threading.Timer(STOP_S_MAX, cut_stop, (STOP_S_MAX,))
            cutter.daemon = True
            cutter.start()
        super()._schedule_shutdown(signal)

    async def _sentinel_task(self) -> None:
        # mode waits a second here before it closes the loop.
        await asyncio.sleep(0)


class ProgressJudge:
    """Decides from samples whether work that can be done is not being done; it has no I/O and no clock."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: dict[str, tuple[Any, float]] = {}
        self._judged_at = -math.inf

    def judge(self, now: float, pending: Mapping[str, Any]) -> str | None:
        """Take a sample and return what has been pending, without any change, for longer than the limit.

        Args:
            now: monotonic seconds.
            pending: what should move, by name, with a value that changes when it does. What is not pending any more
                is left out; pass an empty mapping while something outside keeps it all from moving.
        """
        if now - self._judged_at > _SAMPLE_GAP_S_MAX:
            # The whole process stood still, as after SIGSTOP.
            self._since = {}
        self._judged_at = now
        self._since = {
            name: self._since[name] if name in self._since and self._since[name][0] == value else (value, now)
            for name, value in pending.items()
        }
        stalled = [name for name, (_, since) in self._since.items() if now - since > self._limit_s]
        return ", ".join(sorted(stalled)) or None


class Watchdog(Service):
    """Ends the process when the worker should make progress and makes none while Kafka answers.

    Args:
        app: a role's app that consumes.
        excuses: each returns a sentence while something else keeps the worker from working, as a database that is away
            does, or a partition it writes to that has no leader; None while nothing does.
    """

    def __init__(self, app: Any, excuses: list[Callable[[], str | None]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self._excuses = excuses
        self._judge = ProgressJudge(STALL_S_MAX)
        self._turned_at = time.monotonic()
        self._ended = threading.Event()
        self._silent: list[TP] = []

    async def on_start(self) -> None:
        """Watch the event loop from outside of it."""
        threading.Thread(target=self._watch_loop, name="loop-watch", daemon=True).start()

    async def on_stop(self) -> None:
        """From here on the deadline of the stop holds."""
        self._ended.set()

    @Service.task
    async def _look(self) -> None:
        while not self.should_stop:
            self._turned_at = time.monotonic()
            failure = self.app.consumer.failure()
            # A stop cancels the parts one after the other.
            if failure is not None and not self.should_stop and not self.app.should_stop:
                fail_fast("the Kafka client", failure)
            await self.sleep(_LOOK_INTERVAL_S)

    @Service.task
    async def _probe(self) -> None:
        """Compare where the worker is with where the log ends, asked by a client of its own."""
        consumer: AIOKafkaConsumer | None = None
        while not self.should_stop:
            await self.sleep(_PROBE_INTERVAL_S)
            try:
                async with asyncio.timeout(_PROBE_S_MAX):
                    if consumer is None:
                        consumer = AIOKafkaConsumer(**kafka_arguments(self.app.settings.broker_list))
                        await consumer.start()
                    pending = await self._pending(consumer)
            except (KafkaError, OSError, TimeoutError):
                # Without Kafka nobody makes progress, and a worker that starts again would not either.
                await _close(consumer)
                consumer, pending, self._silent = None, {}, []
            if any(excuse() is not None for excuse in self._excuses):
                pending = {}
            stalled = self._judge.judge(time.monotonic(), pending)
            if stalled is not None and not self.app.should_stop:
                fail_fast("watching the progress", Stalled(f"no progress for {STALL_S_MAX:g} s: {stalled}"))
        await _close(consumer)

    async def _pending(self, probe: AIOKafkaConsumer) -> dict[str, Any]:
        app = self.app
        if app.rebalancing or not app.tables.actives_ready:
            recovery = app.tables.recovery
            replayed = sum(offset or 0 for offset in recovery.active_offsets.values())
            reached = (app.consumer_generation_id, app.rebalancing_count, replayed)
            await probe.topics()
            return {"partitions being assigned and recovered": reached}
        positions: dict[TP, int] = app.consumer.positions
        ends = await _ends(probe, positions)
        self._silent = sorted(positions.keys() - ends.keys())
        # Not by where the log ends, which moves on while a worker stands still.
        return {
            f"{tp.topic}-{tp.partition} at {position}": position
            for tp, position in positions.items()
            if position < ends.get(tp, position)
        }

    def why_not_ready(self) -> str | None:
        """A sentence while a partition of ours has no broker that tells where it ends; others are judged as ever."""
        if not self._silent:
            return None
        names = ", ".join(f"{tp.topic}-{tp.partition}" for tp in self._silent)
        return f"no broker tells where {names} ends: is its leader away, or the topic gone?"

    def _watch_loop(self) -> None:
        """End the process when the loop stands still while other threads go on.

        Compiled code lets no other thread run until it returns, this one included: a stall inside the matching of one
        command is not seen here. Its worker's heartbeats are missed by Kafka, and what one command can lead to is what
        bounds it.
        """
        looked_at = time.monotonic()
        while not self._ended.wait(_LOOK_INTERVAL_S):
            now, last = time.monotonic(), looked_at
            looked_at = now
            if now - last > _LOOK_INTERVAL_S * 5:
                # This thread stood still, too: the process was stopped, as by SIGSTOP, or compiled code ran. Neither
                # says that the loop hangs.
                self._turned_at = now
            if now - self._turned_at > LOOP_STALL_S_MAX and not self._ended.is_set():
                faulthandler.dump_traceback(sys.__stderr__ or 2)
                fail_fast("the event loop", Stalled(f"it did not turn for {LOOP_STALL_S_MAX:g} s"))


async def _ends(probe: AIOKafkaConsumer, tps: Iterable[TP]) -> dict[TP, int]:
    """Where partitions end; one whose leader does not answer is left out, and holds up no other one.

    Raises:
        KafkaError: no broker answers anything.
        TimeoutError: so it is.
    """
    asked = [asyncio.create_task(probe.end_offsets([tp])) for tp in tps]
    if not asked:
        return {}
    try:
        answered, _ = await asyncio.wait(asked, timeout=_ENDS_S_MAX)
    finally:
        # The probe's own time may be over, too.
        for one in asked:
            one.cancel()
    ends: dict[TP, int] = {}
    for one in answered:
        with suppress(KafkaError):
            ends |= one.result()
    if not ends:
        # Is it their leaders, or all of Kafka?
        await probe.topics()
    return ends


async def _close(consumer: AIOKafkaConsumer | None) -> None:
    if consumer is None:
        return
    try:
        async with asyncio.timeout(_PROBE_S_MAX):
            await consumer.stop()
    except (KafkaError, OSError, TimeoutError):
        log.debug("the probe's client could not be closed in time")
