"""A worker that must let go of its partitions before everything is acknowledged takes none back that is not durable."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

import agents.checkpointed
from agents.checkpointed import Assigned, CheckpointedAgent
from forkast_streams.checkpoint import Checkpointer, Rows, recover
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.producer import SentBatch
from forkast_streams.transport import Idle
from tests.support.flows import PARTITIONS, home_of, mixed_flow, records_of

HOME = home_of(1)


class _Table:
    """The rows that the changelog has; nobody else has written there."""

    name = "order_books"

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    async def append(self, _partition: int, rows: Rows, _producer: object) -> None:
        """Write them."""
        for key in rows.drops:
            self.rows.pop(key, None)
        self.rows.update(rows.puts)

    def is_as_left(self, _partition: int) -> bool:
        """Whether nobody else has written."""
        return True


class _Worker:
    """An agent with one partition, without Faust around it."""

    def __init__(self) -> None:
        self.table = _Table()
        agent: Any = object.__new__(CheckpointedAgent)
        agent.table, agent.producer, agent.topic = self.table, None, "orders.new"
        agent._idle, agent._drains, agent._let_go = Idle(), 0, {}
        self.state = EnginePartition(HOME, PARTITIONS)
        agent.partitions = {HOME: Assigned(self.state, Checkpointer(HOME, 1))}
        self.agent = agent
        self._records = iter(records_of(list(mixed_flow(400))))

    @property
    def assigned(self) -> Assigned[EnginePartition]:
        """The partition, held or let go."""
        held: dict[int, Assigned[EnginePartition]] = self.agent.partitions or self.agent._let_go
        return held[HOME]

    def process(self, count: int, *outputs: asyncio.Future[Any]) -> None:
        """Process some records, whose outputs are acknowledged with ``outputs``."""
        assigned = self.assigned
        self.state.process([next(self._records) for _ in range(count)])
        assigned.records += count
        assigned.outputs += [SentBatch(asyncio.shield(one), 1) for one in outputs]

    def recovered(self) -> EnginePartition:
        """The partition as another worker would find it."""
        found = recover(self.table.rows)
        assert found.newest is not None
        return EnginePartition.restore(HOME, found.newest.reached, found.head, found.entries.items(), found.journal)


async def test_partition_whose_outputs_were_not_acknowledged_in_time_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its checkpoint is still on its way: a chain that went on behind it could be read by nobody, if it never came."""
    monkeypatch.setattr(agents.checkpointed, "DRAIN_S_MAX", 0.05)
    worker = _Worker()
    worker.process(100)
    await worker.agent.drain()
    assert worker.agent._is_as_left(HOME, worker.assigned)

    worker.agent.partitions, worker.agent._let_go = worker.agent._let_go, {}
    late = asyncio.get_running_loop().create_future()
    worker.process(100, late)
    await worker.agent.drain()
    assert not worker.agent._is_as_left(HOME, worker.assigned)
    assert worker.recovered().next_offset == 100

    # Whoever comes meanwhile reads what is there; what comes late is whole.
    late.set_result(None)
    await worker.assigned.written()
    assert worker.agent._is_as_left(HOME, worker.assigned)
    assert worker.recovered().next_offset == 200


async def test_partition_whose_checkpoint_was_given_up_is_not_kept() -> None:
    """Its changes were taken for rows that nobody has."""
    worker = _Worker()
    worker.process(100, asyncio.get_running_loop().create_future())
    worker.agent._checkpoint(HOME, worker.assigned)
    await asyncio.sleep(0)
    assert worker.assigned.writing is not None
    worker.assigned.writing.cancel()
    await worker.assigned.written()
    assert not worker.agent._is_as_left(HOME, worker.assigned)


async def test_a_batch_is_acknowledged_when_the_checkpoint_reaches_its_end() -> None:
    """A keeper's batch may end inside a command; its checkpoint is at the beginning of that."""
    worker = _Worker()
    acknowledged: list[int] = []

    def batch_to(last: int) -> Any:
        return SimpleNamespace(message=SimpleNamespace(offset=last), ack=lambda: acknowledged.append(last))

    worker.process(100)
    worker.assigned.events += [batch_to(49), batch_to(99), batch_to(120)]
    worker.agent._checkpoint(HOME, worker.assigned)
    await worker.assigned.written()
    assert acknowledged == [49, 99]
    assert [event.message.offset for event in worker.assigned.events] == [120]
    await worker.agent.drain()
    # It is read again, by whoever has the partition next.
    assert worker.assigned.events == []
