"""The matching engine of one partition: a deterministic state machine over its commands.

Time, order of commands and the offset that identifies each of them are arguments; the same commands give the same
events, whenever and wherever they are processed.
"""

from __future__ import annotations

from forkast_streams.engine.amending import amend, why_not_amend
from forkast_streams.engine.changes import Changes
from forkast_streams.engine.commands import Amend, Cancel, CancelAfter, CancelAll, Command, Heartbeat, NewOrder
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.events import (
    BY_CANCEL_ALL,
    BY_USER,
    CancelScheduled,
    CommandRejected,
    Event,
    SymbolDefined,
)
from forkast_streams.engine.id_keys import order_key
from forkast_streams.engine.market import Market
from forkast_streams.engine.open_orders import OpenOrders
from forkast_streams.engine.order import Order
from forkast_streams.engine.placing import place, place_plain, why_not_new
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.seen_ids import SeenIds
from forkast_streams.engine.symbols import HALTED, Symbol


class MatchingEngine:
    """The symbols and order books of one partition.

    Attributes:
        markets: by symbol id.
        open_orders: all of them by id.
        seen: order ids that may not be used again.
        changes: what checkpoints need to know, and the queue positions given out.
    """

    __slots__ = ("changes", "markets", "open_orders", "seen")

    def __init__(self) -> None:
        self.markets: dict[int, Market] = {}
        self.open_orders = OpenOrders()
        self.seen = SeenIds()
        self.changes = Changes()

    def process(self, command: Command, offset: int, timestamp: int) -> list[Event]:
        """Apply ``command`` and return its events, at least one unless it is a heartbeat.

        What is due to expire by ``timestamp`` in the command's symbol expires first.

        Args:
            command: what to do; its symbol must be known unless it defines one.
            offset: the command's place in the input, larger than of any command before.
            timestamp: milliseconds, never smaller than of any command before.
        """
        events: list[Event] = []
        market = self.markets.get(command.symbol_id)
        if market is not None and timestamp >= market.book.next_due:
            market.expire(timestamp, events)
        if market is None:
            assert isinstance(command, DefineSymbol), "a symbol must be defined before other commands for it"
            self._define_symbol(None, command, events)
        elif isinstance(command, NewOrder):
            self._new_order(market, command, offset, timestamp, events)
        elif isinstance(command, Cancel):
            _cancel(market, command, events)
        elif isinstance(command, Amend):
            _amend(market, command, events)
        elif isinstance(command, CancelAll):
            _cancel_all(market, command, events)
        elif isinstance(command, CancelAfter):
            _cancel_after(market, command, timestamp, events)
        elif isinstance(command, DefineSymbol):
            self._define_symbol(market, command, events)
        else:
            assert isinstance(command, Heartbeat), "every command has its branch here"
        return events

    def add_symbol(self, rules: DefineSymbol) -> Market:
        """Add a symbol with an empty book."""
        market = self.markets[rules.symbol_id] = Market(Symbol(rules), self.open_orders, self.changes)
        return market

    def _new_order(self, market: Market, command: NewOrder, offset: int, timestamp: int, events: list[Event]) -> None:
        key = order_key(command.order_id)
        # An order that is refused has used its id up, too: it would be another order if it were sent again. One that
        # has been open for longer than its id is remembered still has it.
        if self.open_orders.find(key) is not None or not self.seen.add(key, timestamp):
            rejection: Rejection | None = Rejection.DUPLICATE_ORDER
        elif place_plain(market, command, key, offset, events):
            return
        else:
            rejection = why_not_new(market, command, timestamp)
        if rejection is None:
            place(market, command, key, offset, events)
        else:
            events.append(_rejected(market, command, rejection))

    def _define_symbol(self, market: Market | None, command: DefineSymbol, events: list[Event]) -> None:
        if market is not None and command.keep_status:
            command.status = market.symbol.status
        # The rules are remembered with the status they have.
        command.keep_status = False
        if market is None:
            self.add_symbol(command)
        elif not market.symbol.has_grids_of(command):
            if market.book.count:
                events.append(_rejected(market, command, Rejection.SYMBOL_IN_USE))
                return
            # Its last price may be no price of the new grid. The old rules stay as they are: events of orders that
            # expired just before are encoded by them.
            market.book.last_ticks = None
            market.symbol = Symbol(command, market.symbol.sequence)
        else:
            market.symbol.define(command)
        if market is not None:
            market.book.look_for_due(halted=market.symbol.status == HALTED)
        events.append(SymbolDefined(command))


def _cancel(market: Market, command: Cancel, events: list[Event]) -> None:
    order = _own_order(market, command)
    if order is None:
        events.append(_rejected(market, command, Rejection.UNKNOWN_ORDER))
    elif market.symbol.status == HALTED:
        events.append(_rejected(market, command, Rejection.SYMBOL_HALTED))
    else:
        events.append(market.cancel(order, BY_USER, command.command_id))


def _amend(market: Market, command: Amend, events: list[Event]) -> None:
    order = _own_order(market, command)
    rejection = why_not_amend(market, command, order)
    if rejection is not None or order is None:
        events.append(_rejected(market, command, rejection or Rejection.UNKNOWN_ORDER))
    else:
        amend(market, command, order, events)


def _cancel_all(market: Market, command: CancelAll, events: list[Event]) -> None:
    if market.symbol.status == HALTED:
        events.append(_rejected(market, command, Rejection.SYMBOL_HALTED))
    else:
        market.cancel_all(command.user_id, BY_CANCEL_ALL, command.command_id, events)


def _cancel_after(market: Market, command: CancelAfter, timestamp: int, events: list[Event]) -> None:
    # Also while the symbol is halted: it changes no order, and who is alive must be able to say so.
    deadline = timestamp + command.timeout_ms if command.timeout_ms else None
    market.book.set_deadline(command.user_id, deadline)
    events.append(CancelScheduled(command.user_id, deadline, command.command_id))


def _own_order(market: Market, command: Cancel | Amend) -> Order | None:
    """The open order a command names; None for another user's, so that nobody learns that it exists."""
    order = market.book.order(command.order_id)
    return order if order is not None and order.owner.user_id == command.user_id else None


def _rejected(market: Market, command: Command, rejection: Rejection) -> CommandRejected:
    return CommandRejected(command, rejection, rejection.message(command, market.symbol))
