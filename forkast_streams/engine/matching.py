"""How an order trades with the other side of its book: price by price, first come first served."""

from __future__ import annotations

from itertools import islice
from typing import Final

from mypy_extensions import i64

from forkast_streams.engine.changes import Changes
from forkast_streams.engine.commands import BUY, EXPIRE_MAKER, EXPIRE_TAKER, NONE
from forkast_streams.engine.events import (
    BY_SELF_TRADE,
    Event,
    OrderCancelled,
    QuantityShown,
    TradeExecuted,
    status_of,
)
from forkast_streams.engine.order import Order
from forkast_streams.engine.order_book import BookSide, OrderBook
from forkast_streams.limits import FOK_LEVELS_MAX, FOK_ORDERS_MAX

# The worst price of an order that takes any; there are none as high, or as low.
_ANY_HIGH: Final[i64] = 1 << 61
_ANY_LOW: Final[i64] = 0


def match(
    book: OrderBook, changes: Changes, taker: Order, worst_ticks: i64, events: list[Event], *, in_depth: bool
) -> bool:
    """Let ``taker`` trade while its limit allows and it is not filled.

    Args:
        book: where it trades.
        changes: told of every maker that changes.
        taker: its ``remaining`` goes down.
        worst_ticks: the worst price, see `worst_of`.
        events: get what happens.
        in_depth: whether the public depth has the taker's open quantity at its limit already, see TradeExecuted.

    Returns:
        Whether it was stopped by an order of its own user, so that nothing of it may rest.
    """
    makers = book.makers_for(taker.side)
    worst_key = worst_ticks * makers.sign
    levels = makers.levels
    if not levels or levels[-1].key < worst_key:
        return False
    taker_price_ticks = int(worst_ticks) if in_depth else None
    owner = taker.owner
    while taker.remaining and levels:
        level = levels[-1]
        if level.key < worst_key:
            break
        maker = level.head
        assert maker is not None, "a level without orders must have been dropped"
        if maker.owner is owner and taker.terms.self_trade_prevention != NONE:
            mode = taker.terms.self_trade_prevention
            if mode != EXPIRE_TAKER:
                events.append(cancel_open(book, changes, maker, BY_SELF_TRADE, None))
            if mode != EXPIRE_MAKER:
                return True
            continue
        quantity = min(taker.remaining, maker.remaining - maker.hidden)
        taker.remaining -= quantity
        maker.remaining -= quantity
        level.open_quantity -= quantity
        taker_filled = taker.quantity - taker.remaining
        maker_filled = maker.quantity - maker.remaining
        events.append(
            TradeExecuted(
                maker.price_ticks,
                quantity,
                taker.side,
                taker_price_ticks,
                taker.id,
                owner.user_id,
                taker_filled,
                status_of(taker_filled, taker.quantity),
                maker.id,
                maker.owner.user_id,
                maker_filled,
                status_of(maker_filled, maker.quantity),
            )
        )
        book.last_ticks = maker.price_ticks
        if maker.remaining != maker.hidden:
            changes.change(maker)
        elif maker.hidden:
            events.append(_show_next_slice(makers, changes, maker))
        else:
            makers.remove(maker)
            book.forget(maker)
            changes.forget(maker)
    return False


def worst_of(side: str, limit_ticks: int | None) -> i64:
    """The worst price at which an order of a limit trades, in ticks; None is no limit."""
    if limit_ticks is None:
        return _ANY_HIGH if side == BUY else _ANY_LOW
    return limit_ticks


def spend(
    book: OrderBook,
    changes: Changes,
    taker: Order,
    worst_ticks: int | None,
    amount: int,
    max_lots: int | None,
    events: list[Event],
) -> tuple[int, bool]:
    """Let ``taker`` trade for an amount of money in ticks times lots.

    At each price it takes as many lots as the rest affords there; it is filled once that is less than one lot, or once
    it has ``max_lots``, as an order for so many would be. ``taker.quantity`` is then what it has traded, and while it
    is not filled more than that.

    Returns:
        What is left of ``amount``, and whether it was stopped by an order of its own user.
    """
    makers = book.makers_for(taker.side)
    filled = 0
    while (price_ticks := makers.best_price_ticks()) is not None:
        if worst_ticks is not None and price_ticks * makers.sign < worst_ticks * makers.sign:
            break
        affordable = amount // price_ticks
        if max_lots is not None:
            affordable = min(affordable, max_lots - filled)
        if affordable == 0:
            break
        taker.quantity, taker.remaining = filled + affordable, affordable
        is_stopped = match(book, changes, taker, price_ticks, events, in_depth=False)
        traded = affordable - taker.remaining
        amount -= traded * price_ticks
        filled += traded
        if is_stopped or not taker.remaining:
            return amount, is_stopped
    return amount, False


def cancel_open(book: OrderBook, changes: Changes, order: Order, reason: str, command_id: str | None) -> OrderCancelled:
    """Take a resting or waiting order out of the book for good."""
    book.side_of(order).remove(order)
    book.forget(order)
    changes.forget(order)
    return OrderCancelled(
        order.id,
        order.owner.user_id,
        order.side,
        order.limit_ticks,
        order.remaining,
        order.quantity - order.remaining,
        order.shown,
        reason,
        command_id,
        order.terms.stop_ticks if order.waiting else None,
    )


def can_fill(book: OrderBook, taker: Order, limit_ticks: int | None) -> bool:
    """Whether the first ``FOK_LEVELS_MAX`` levels would fill ``taker`` to the last lot, self-trade prevention and all.

    Whether its user stands among them is seen by looking at each order, at ``FOK_ORDERS_MAX`` of them: going through
    the user's own orders instead would make many such orders of one user a matter of their square.
    """
    makers = book.makers_for(taker.side)
    owner, mode = taker.owner, taker.terms.self_trade_prevention
    # An order that waited for its stop price is one of its user's.
    others = owner.count - (1 if taker.rank else 0)
    may_meet_own = others > 0 and mode != NONE
    open_quantity, looked_at = 0, 0
    for level in islice(makers.nearest(), FOK_LEVELS_MAX):
        if limit_ticks is not None and level.key < limit_ticks * makers.sign:
            return False
        if not may_meet_own:
            open_quantity += level.open_quantity
        else:
            hidden = 0
            maker = level.head
            while maker is not None and open_quantity < taker.remaining:
                looked_at += 1
                if looked_at > FOK_ORDERS_MAX or (maker.owner is owner and mode != EXPIRE_MAKER):
                    return False
                if maker.owner is not owner:
                    open_quantity += maker.remaining - maker.hidden
                    hidden += maker.hidden
                maker = maker.next
            # What icebergs hide comes behind all that the level shows.
            open_quantity += hidden
        if open_quantity >= taker.remaining:
            return True
    return False


def _show_next_slice(makers: BookSide, changes: Changes, maker: Order) -> QuantityShown:
    """Let an iceberg order whose slice has traded show the next one, behind all others at its price."""
    makers.remove(maker)
    hide(maker)
    makers.append(maker)
    changes.give_rank(maker)
    return QuantityShown(
        maker.id, maker.owner.user_id, maker.side, maker.price_ticks, maker.remaining - maker.hidden, refill=True
    )


def hide(order: Order) -> None:
    """Show one slice of an iceberg order, all of any other."""
    display = order.terms.display_quantity
    order.hidden = 0 if display is None else max(0, order.remaining - display)
