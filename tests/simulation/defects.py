"""Promises broken on purpose: a simulation that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import forkast_streams.checkpoint
from agents.checkpointed import CheckpointedAgent
from forkast_streams.checkpoint import Checkpointer
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.orders.desk import OrderDesk
from tables.segments import SegmentTable
from tests.simulation.exchange import Defect, Exchange


def _defect(name: str, owner: Any, attribute: str, make: Callable[[Any], Any]) -> Defect:
    """A defect that is another ``attribute`` of ``owner``, made of the one that is there."""

    def install(_: Exchange) -> Callable[[], None]:
        patched = patch.object(owner, attribute, make(getattr(owner, attribute)))
        patched.start()
        return partial(_stop, patched)

    return Defect(name, install)


def _stop(patched: Any) -> None:
    patched.stop()


def _acknowledge_first(make_durable: Any) -> Any:
    async def wrong(self: Any, partition: int, rows: Any, outputs: Any, events: Any) -> None:
        for event in events:
            event.ack()
        await make_durable(self, partition, rows, outputs, [])

    return wrong


def _await_no_output(make_durable: Any) -> Any:
    async def wrong(self: Any, partition: int, rows: Any, _outputs: Any, events: Any) -> None:
        await make_durable(self, partition, rows, [], events)

    return wrong


def _write_locally_first(append: Any) -> Any:
    async def wrong(self: Any, partition: int, rows: Any, producer: Any) -> None:
        self._write_locally(partition, rows)
        await append(self, partition, rows, producer)

    return wrong


def _restore_with(change: Callable[[Any], None]) -> Callable[[Any], Any]:
    def make(restore: Any) -> Any:
        def wrong(*args: Any) -> Any:
            state = restore(*args)
            change(state)
            return state

        return staticmethod(wrong)

    return make


def _forget_sequences(state: Any) -> None:
    for market in state.engine.markets.values():
        market.symbol.sequence = max(0, market.symbol.sequence - 1)


def _forget_ids(state: Any) -> None:
    state.engine.seen.current = set()


def _forget_an_order(state: Any) -> None:
    for market in state.engine.markets.values():
        for order in list(market.book.orders.values())[:1]:
            market.book.forget(order)


def _start_one_further(restore_positions: Any) -> Any:
    async def wrong(self: Any, tps: Any) -> Any:
        return {tp: offset + 1 for tp, offset in (await restore_positions(self, tps)).items()}

    return wrong


def _drop_too_much(take_drops: Any) -> Any:
    def wrong(self: Any) -> Any:
        self._keep_from = self.newest.reached if self.newest is not None else 0
        return take_drops(self)

    return wrong


def _lose_a_change(take_changes: Any) -> Any:
    def wrong(self: Any) -> Any:
        live, dead = take_changes(self)
        return live[1:], dead

    return wrong


def _never_claim(_: Any) -> Any:
    async def wrong(_self: Any, _order: Any) -> bool:
        return False

    return wrong


def _skip_an_event(apply: Any) -> Any:
    def wrong(self: Any, records: Any) -> Any:
        return apply(self, [record for record in records if record.offset % 50 != 7 or self.next_offset == 0])

    return wrong


def _without_fence(exchange: Exchange) -> None:
    exchange.tables.is_fenced = False


DEFECTS = (
    _defect("input is acknowledged before its checkpoint", CheckpointedAgent, "_make_durable", _acknowledge_first),
    _defect("a checkpoint does not wait for its outputs", CheckpointedAgent, "_make_durable", _await_no_output),
    _defect("the local store is written before the changelog", SegmentTable, "append", _write_locally_first),
    _defect("sequences are restored one too low", EnginePartition, "restore", _restore_with(_forget_sequences)),
    _defect("used order ids are forgotten", EnginePartition, "restore", _restore_with(_forget_ids)),
    _defect("an order is lost in recovery", EnginePartition, "restore", _restore_with(_forget_an_order)),
    _defect("a change is left out of a checkpoint", EnginePartition, "take_changes", _lose_a_change),
    _defect("input goes on one record too far", CheckpointedAgent, "_restore_positions", _start_one_further),
    _defect("rows are dropped that an older chain needs", Checkpointer, "_take_drops", _drop_too_much),
    _defect("checksums are not looked at", forkast_streams.checkpoint, "_checksum", lambda _: lambda *_: 0),
    _defect("client order ids are not looked up", OrderDesk, "_claim", _never_claim),
    _defect("the keeper misses events", MarketDataState, "apply", _skip_an_event),
    Defect("the sink has no fence", _without_fence),
)
