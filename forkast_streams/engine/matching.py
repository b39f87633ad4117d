"""The matching engine of one partition: a deterministic state machine over its commands.

Time, order of commands and the offset that identifies each of them are arguments; the same commands give the same
events, whenever and wherever they are processed.
"""

from __future__ import annotations

from forkast_streams.engine.commands import (
    BUY,
    IOC,
    MARKET,
    Amend,
    Cancel,
    Command,
    DefineSymbol,
    NewOrder,
)
from forkast_streams.engine.events import (
    CommandRejected,
    Event,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    SymbolDefined,
    TradeExecuted,
    status_of,
)
from forkast_streams.engine.order_book import BookSide, Order, OrderBook
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.rules import broken_price_rule, broken_quantity_rule, broken_rule
from forkast_streams.engine.seen_ids import SeenIds
from forkast_streams.engine.symbols import HALTED, Grid, Symbol
from forkast_streams.limits import PRICE_MAX, QUANTITY_MAX

_ANY_PRICE = -(1 << 62)


class MatchingEngine:
    """The symbols and order books of one partition.

    Attributes:
        symbols: trading rules by symbol id.
        books: order books by symbol id; each symbol has one.
        seen: order ids that may not be used again.
        changed: resting orders that no checkpoint has as they are, by offset.
        gone: offsets of orders that a checkpoint has and that rest no more.
    """

    __slots__ = ("books", "changed", "gone", "next_rank", "seen", "symbols")

    def __init__(self) -> None:
        self.symbols: dict[int, Symbol] = {}
        self.books: dict[int, OrderBook] = {}
        self.seen = SeenIds()
        self.next_rank = 1
        self.changed: dict[int, Order] = {}
        self.gone: list[int] = []

    def process(self, command: Command, offset: int, timestamp: int) -> list[Event]:
        """Apply ``command`` and return its events, at least one.

        Args:
            command: what to do; its symbol must be known unless it defines one.
            offset: the command's place in the input, larger than of any command before.
            timestamp: milliseconds, never smaller than of any command before.
        """
        kind = type(command)
        if kind is NewOrder:
            return self._new_order(command, offset, timestamp)  # type: ignore[arg-type]
        if kind is Cancel:
            return self._cancel(command)  # type: ignore[arg-type]
        if kind is Amend:
            return self._amend(command)  # type: ignore[arg-type]
        return self._define_symbol(command)  # type: ignore[arg-type]

    def rest(self, order: Order) -> None:
        """Put ``order`` at the back of the queue at its price."""
        book = self.books[order.symbol_id]
        order.rank = self.next_rank
        self.next_rank += 1
        book.side(order.side).append(order)
        book.orders[order.id] = order
        self.changed[order.offset] = order

    def _new_order(self, command: NewOrder, offset: int, timestamp: int) -> list[Event]:
        symbol = self.symbols[command.symbol_id]
        rejection = self._why_not_new(command, symbol)
        if rejection is not None and rejection is not Rejection.DUPLICATE_ORDER:
            self.seen.add(command.order_id, timestamp)
        if rejection is not None:
            return [_rejected(command, rejection, symbol)]
        self.seen.add(command.order_id, timestamp)
        price_ticks = None if command.price is None else symbol.ticks.units(command.price)
        quantity = symbol.lots.units(command.quantity)
        events: list[Event] = [
            OrderAccepted(
                command.order_id,
                command.user_id,
                command.type,
                command.side,
                price_ticks,
                quantity,
                command.time_in_force,
                command.client_order_id,
                command.command_id,
            )
        ]
        taker = Order(
            offset,
            symbol.id,
            command.order_id,
            command.user_id,
            command.side,
            0 if price_ticks is None else price_ticks,
            quantity,
            quantity,
            timestamp,
            command.client_order_id,
        )
        self._match(taker, price_ticks, events)
        if taker.remaining:
            if command.type == MARKET or command.time_in_force == IOC:
                reason = MARKET if command.type == MARKET else IOC
                events.append(_cancelled(taker, price_ticks, reason, command.command_id))
            else:
                self.rest(taker)
        return events

    def _why_not_new(self, command: NewOrder, symbol: Symbol) -> Rejection | None:
        """The first reason, in the documented order, for which the order cannot be accepted."""
        if command.order_id in self.seen or command.order_id in self.books[symbol.id].orders:
            return Rejection.DUPLICATE_ORDER
        if symbol.status == HALTED:
            return Rejection.SYMBOL_HALTED
        return broken_rule(command, symbol)

    def _match(self, taker: Order, limit_ticks: int | None, events: list[Event]) -> None:
        """Trade ``taker`` against the other side while its limit allows; None is any price."""
        book = self.books[taker.symbol_id]
        makers = book.asks if taker.side == BUY else book.bids
        limit_key = _ANY_PRICE if limit_ticks is None else limit_ticks * makers.sign
        keys = makers.keys
        while taker.remaining and keys and keys[-1] >= limit_key:
            maker = makers.levels[keys[-1]].head
            assert maker is not None, "a level without orders must have been dropped"
            quantity = min(taker.remaining, maker.remaining)
            taker.remaining -= quantity
            maker.remaining -= quantity
            taker_filled = taker.quantity - taker.remaining
            maker_filled = maker.quantity - maker.remaining
            events.append(
                TradeExecuted(
                    maker.price_ticks,
                    quantity,
                    taker.side,
                    limit_ticks,
                    taker.id,
                    taker.user_id,
                    taker_filled,
                    status_of(taker_filled, taker.quantity),
                    maker.id,
                    maker.user_id,
                    maker_filled,
                    status_of(maker_filled, maker.quantity),
                )
            )
            if maker.remaining:
                self.changed[maker.offset] = maker
            else:
                self._remove(maker, makers, book)

    def _remove(self, order: Order, side: BookSide, book: OrderBook) -> None:
        """Take a resting order out of the book for good."""
        side.remove(order)
        del book.orders[order.id]
        self.changed.pop(order.offset, None)
        if order.saved:
            self.gone.append(order.offset)

    def _cancel(self, command: Cancel) -> list[Event]:
        symbol = self.symbols[command.symbol_id]
        order = self._own_order(command)
        if order is None:
            return [_rejected(command, Rejection.UNKNOWN_ORDER, symbol)]
        return [self._cancel_resting(order, "USER", command.command_id)]

    def _cancel_resting(self, order: Order, reason: str, command_id: str | None) -> Event:
        book = self.books[order.symbol_id]
        self._remove(order, book.side(order.side), book)
        return _cancelled(order, order.price_ticks, reason, command_id)

    def _amend(self, command: Amend) -> list[Event]:
        symbol = self.symbols[command.symbol_id]
        order = self._own_order(command)
        rejection = _why_not_amend(command, order, symbol)
        if rejection is not None or order is None:
            return [_rejected(command, rejection or Rejection.UNKNOWN_ORDER, symbol)]
        price_ticks = order.price_ticks if command.price is None else symbol.ticks.units(command.price)
        quantity = order.quantity if command.quantity is None else symbol.lots.units(command.quantity)
        filled = order.quantity - order.remaining
        if quantity <= filled:
            return [self._cancel_resting(order, "AMEND", command.command_id)]
        keeps_place = price_ticks == order.price_ticks and quantity <= order.quantity
        amended = OrderAmended(
            order.id,
            order.user_id,
            order.side,
            price_ticks,
            quantity,
            filled,
            status_of(filled, quantity),
            keeps_place,
            order.price_ticks,
            order.quantity,
            command.command_id,
        )
        if keeps_place:
            order.quantity = quantity
            order.remaining = quantity - filled
            self.changed[order.offset] = order
            return [amended]
        return self._requeue(order, price_ticks, quantity, amended)

    def _requeue(self, order: Order, price_ticks: int, quantity: int, amended: OrderAmended) -> list[Event]:
        """Let an amended order come in again as a taker; what does not trade rests behind all others."""
        events: list[Event] = [amended]
        book = self.books[order.symbol_id]
        book.side(order.side).remove(order)
        order.price_ticks = price_ticks
        order.remaining += quantity - order.quantity
        order.quantity = quantity
        self._match(order, price_ticks, events)
        if order.remaining:
            self.rest(order)
        else:
            del book.orders[order.id]
            self.changed.pop(order.offset, None)
            if order.saved:
                self.gone.append(order.offset)
        return events

    def _own_order(self, command: Cancel | Amend) -> Order | None:
        """The resting order a command names; None for another user's, so that nobody learns that it exists."""
        order = self.books[command.symbol_id].orders.get(command.order_id)
        return order if order is not None and order.user_id == command.user_id else None

    def _define_symbol(self, command: DefineSymbol) -> list[Event]:
        symbol = self.symbols.get(command.symbol_id)
        if symbol is None:
            symbol = self.add_symbol(command.symbol_id, command.name, command)
        elif (symbol.ticks.step, symbol.lots.step) != (command.tick_size, command.lot_size):
            if self.books[symbol.id].orders:
                return [_rejected(command, Rejection.SYMBOL_IN_USE, symbol)]
            symbol.ticks = Grid(command.tick_size, PRICE_MAX)
            symbol.lots = Grid(command.lot_size, QUANTITY_MAX)
        symbol.name = command.name
        symbol.status = command.status
        return [
            SymbolDefined(
                symbol.name,
                f"{command.tick_size:f}",
                f"{command.lot_size:f}",
                symbol.status,
                command.command_id,
            )
        ]

    def add_symbol(self, symbol_id: int, name: str, rules: DefineSymbol) -> Symbol:
        """Add a symbol with an empty book."""
        symbol = Symbol(
            symbol_id,
            name,
            Grid(rules.tick_size, PRICE_MAX),
            Grid(rules.lot_size, QUANTITY_MAX),
            rules.status,
        )
        self.symbols[symbol_id] = symbol
        self.books[symbol_id] = OrderBook()
        return symbol


def _why_not_amend(command: Amend, order: Order | None, symbol: Symbol) -> Rejection | None:
    if order is None:
        return Rejection.UNKNOWN_ORDER
    if symbol.status == HALTED:
        return Rejection.SYMBOL_HALTED
    return broken_price_rule(command.price, symbol) or broken_quantity_rule(command.quantity, symbol)


def _rejected(command: Command, rejection: Rejection, symbol: Symbol) -> CommandRejected:
    return CommandRejected(command, rejection.value, rejection.message(command, symbol))


def _cancelled(order: Order, price_ticks: int | None, reason: str, command_id: str | None) -> OrderCancelled:
    return OrderCancelled(
        order.id,
        order.user_id,
        order.side,
        price_ticks,
        order.remaining,
        order.quantity - order.remaining,
        reason,
        command_id,
    )
