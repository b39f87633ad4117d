"""The simulation finds what is broken on purpose: else its silence would mean nothing.

What is patched is never in the modules that mypyc compiles, whose classes cannot be patched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest

import forkast_streams.checkpoint
from agents.checkpointed import CheckpointedAgent
from forkast_streams.checkpoint import Checkpointer
from forkast_streams.engine.id_set import IdSet
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog
from forkast_streams.orders.claims import Claims
from forkast_streams.transport import Idle
from tables.segments import SegmentTable
from tests.simulation.exchange import Exchange, run_seed
from tests.simulation.patches import PublicBook
from tests.simulation.world import Violation

Patch = AbstractContextManager[Any]
SEEDS_MAX = 150


def _acknowledged_before_the_segment(_: Exchange) -> Patch:
    """The input is acknowledged, and then committed, while its checkpoint is still under way."""
    make_durable = CheckpointedAgent._make_durable

    async def early(self: Any, partition: int, rows: Any, outputs: Any, events: Any) -> None:
        for event in events:
            event.ack()
        await make_durable(self, partition, rows, outputs, [])

    return patch.object(CheckpointedAgent, "_make_durable", early)


def _segment_before_the_outputs(_: Exchange) -> Patch:
    """A checkpoint does not wait until the outputs that it covers are acknowledged."""
    make_durable = CheckpointedAgent._make_durable

    async def hasty(self: Any, partition: int, rows: Any, _outputs: Any, events: Any) -> None:
        await make_durable(self, partition, rows, [], events)

    return patch.object(CheckpointedAgent, "_make_durable", hasty)


def _checkpoint_inside_a_batch(_: Exchange) -> Patch:
    """A checkpoint is cut while a batch's outputs are being handed over."""
    return patch.object(Idle, "is_idle", PropertyMock(return_value=True))


def _restored_without(spoil: Callable[[EnginePartition], None]) -> Callable[[Exchange], Patch]:
    restore = CheckpointedAgent._restore

    def forgetful(self: Any, partition: int, count: int) -> Any:
        assigned = restore(self, partition, count)
        if isinstance(assigned.state, EnginePartition):
            spoil(assigned.state)
        return assigned

    return lambda _: patch.object(CheckpointedAgent, "_restore", forgetful)


def _forget_sequences(state: EnginePartition) -> None:
    for market in state.engine.markets.values():
        market.symbol.sequence = 0


def _forget_ids(state: EnginePartition) -> None:
    state.engine.seen.current = IdSet()


def _forget_strays(state: EnginePartition) -> None:
    state._forwarded = {}


def _cancels_lost_in_recovery(_: Exchange) -> Patch:
    """Orders that went after the start of the chain are back after a recovery."""
    chain_to = forkast_streams.checkpoint._chain_to

    def without_dead(*arguments: Any) -> Any:
        chain = chain_to(*arguments)
        for segment in chain or []:
            segment.dead.clear()
        return chain

    return patch.object(forkast_streams.checkpoint, "_chain_to", without_dead)


def _checksum_ignored(_: Exchange) -> Patch:
    """A segment is taken for whole whatever its bytes."""
    return patch.object(forkast_streams.checkpoint, "_checksum", lambda *_: 0)


def _rows_dropped_too_early(_: Exchange) -> Patch:
    """Rows are dropped that the newest chain still needs."""
    drain_droppable = Checkpointer._drain_droppable

    def eager(self: Checkpointer) -> list[bytes]:
        self._keep_from = 0 if self.newest is None else self.newest.reached
        return drain_droppable(self)

    return patch.object(Checkpointer, "_drain_droppable", eager)


def _offset_jumps_over_foreign_rows(_: Exchange) -> Patch:
    """The folder's place in the changelog advances over what another worker wrote."""
    write = SegmentTable._write_locally

    def careless(self: SegmentTable, partition: int, rows: Any) -> None:
        self._disputed.clear()
        write(self, partition, rows)

    return patch.object(SegmentTable, "_write_locally", careless)


def _reading_goes_on_at_the_commit(_: Exchange) -> Patch:
    """After a recovery the input is read from where the group has committed, not from where the state is."""

    async def nowhere(_self: Any, _tps: Any) -> dict[Any, int]:
        return {}

    return patch.object(CheckpointedAgent, "_restore_positions", nowhere)


def _sink_without_fence(exchange: Exchange) -> Patch:
    """The statement writes rows wherever the tables are."""
    return patch.object(exchange.tables, "is_fenced", False)


def _readers_without_fence(_: Exchange) -> Patch:
    """A keeper's change is taken whether or not readers are further already."""
    offer = PublicBook.offer

    def unfenced(self: PublicBook, change: Any) -> bool:
        reached = self.sequence
        if change.sequence <= reached:
            self.sequence = change.previous
        is_taken = offer(self, change)
        self.sequence = max(reached, self.sequence)
        self.check()
        return is_taken

    return patch.object(PublicBook, "offer", unfenced)


def _client_ids_not_consulted(_: Exchange) -> Patch:
    """Each request makes an order of its own."""

    async def claim(_self: Any, _order: Any) -> bool:
        return False

    return patch.object(Claims, "claim", claim)


def _order_id_of_the_claim_not_used(_: Exchange) -> Patch:
    """A retry is sent under a new order id."""
    claim = Claims.claim

    async def forgetful(self: Any, order: Any) -> bool:
        order_id = order.order_id
        is_placed = await claim(self, order)
        if not is_placed:
            order.order_id = order_id
        return is_placed

    return patch.object(Claims, "claim", forgetful)


DEFECTS: dict[str, Callable[[Exchange], Patch]] = {
    "acknowledged before the segment": _acknowledged_before_the_segment,
    "segment before the outputs": _segment_before_the_outputs,
    "checkpoint inside a batch": _checkpoint_inside_a_batch,
    "sequences not restored": _restored_without(_forget_sequences),
    "order ids not restored": _restored_without(_forget_ids),
    "forwarded records not restored": _restored_without(_forget_strays),
    "cancels lost in recovery": _cancels_lost_in_recovery,
    "checksum ignored": _checksum_ignored,
    "rows dropped too early": _rows_dropped_too_early,
    "offset jumps over foreign rows": _offset_jumps_over_foreign_rows,
    "reading goes on at the commit": _reading_goes_on_at_the_commit,
    "sink without fence": _sink_without_fence,
    "readers without fence": _readers_without_fence,
    "client ids not consulted": _client_ids_not_consulted,
    "order id of the claim not used": _order_id_of_the_claim_not_used,
}


def first_seed_that_finds(defect: Callable[[Exchange], Patch], seeds_max: int = SEEDS_MAX) -> tuple[int, str]:
    """The first seed in which a promise breaks, and which one; 0 when none of them does."""
    for seed in range(1, seeds_max + 1):
        try:
            run_seed(seed, defect=defect)
        except (Violation, CorruptLog) as exc:
            return seed, str(exc)
    return 0, ""


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_found(name: str) -> None:
    """Within so many seeds in which nothing is found without the defect."""
    found, _ = first_seed_that_finds(DEFECTS[name])
    assert found, f"{SEEDS_MAX} seeds did not find: {name}"
