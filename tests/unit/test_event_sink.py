"""The sink's writers come and go with the assignment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from agents import persist_events
from agents.assignment import LogEnds
from agents.persist_events import EventSink, PartitionWriter
from forkast_streams.records import LastRead
from forkast_streams.sink.history import PartitionHistory
from tests.simulation.shell import SimTransport

_POSTGRES: Any = SimpleNamespace(why_not_ready=lambda: None)


def a_sink() -> EventSink:
    app: Any = SimpleNamespace(
        transport=SimTransport(),
        role=SimpleNamespace(name="sink"),
        topic=lambda name, **_: name,
        agent=lambda *_, **__: lambda fun: fun,
        ready_checks=[],
        excuses=[],
    )
    return EventSink(app, _POSTGRES)


def a_writer(partition: int) -> PartitionWriter:
    history = PartitionHistory(_POSTGRES, "orders.exchange", partition, asyncio.Semaphore())
    return PartitionWriter(history, lambda: None)


async def test_writers_that_start_during_a_drain_do_not_break_it() -> None:
    """A rebalance can follow while the writers of the one before it are still being started."""
    sink = a_sink()
    sink.writers = {0: a_writer(0), 1: a_writer(1)}
    sink.writers[0].idle.clear()
    drain = asyncio.create_task(sink.drain())
    await asyncio.sleep(0)
    sink.writers[2] = a_writer(2)
    sink.writers[0].idle.set()
    await drain
    assert not sink.writers


def test_the_log_is_asked_for_the_last_record_that_the_tables_have() -> None:
    """Not where it is gone, or was written by a sink that did not keep it."""
    sink, tp = a_sink(), TP("orders.exchange", 0)
    last_read = sink.app.transport.last_read
    assert last_read is not None
    assert last_read(tp) is None
    writer = sink.writers[0] = a_writer(0)
    writer.history.next_offset = 5
    assert last_read(tp) is None
    writer.history.last_digest = "ab"
    assert last_read(tp) == LastRead(digest="ab")
    sink._log = LogEnds({tp: 5}, {tp: 5})
    assert last_read(tp) is None


async def test_a_start_without_postgres_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would begin again later: Faust gives up a start that takes long, and says nothing."""

    class EndedError(Exception):
        """The process."""

    def fail_fast(_what: str, exc: BaseException) -> None:
        raise EndedError(str(exc))

    async def never(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(persist_events, "_LOAD_S_MAX", 0.01)
    monkeypatch.setattr(persist_events, "fail_fast", fail_fast)
    monkeypatch.setattr(_POSTGRES, "retrying", never, raising=False)
    with pytest.raises(EndedError, match="Postgres did not say"):
        await a_sink()._restore_positions({TP("orders.exchange", 0)})
