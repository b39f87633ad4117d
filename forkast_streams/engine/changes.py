"""Which open orders changed since the last checkpoint, and the positions in queues that were given out."""

from __future__ import annotations

from forkast_streams.engine.order import Order


class Changes:
    """What checkpoints need to know of open orders, and the queue positions given out.

    Attributes:
        changed: open orders that no checkpoint has as they are, in no order that means anything.
        gone: offsets of orders that a checkpoint has and that are open no more.
        next_rank: the next queue position.
    """

    __slots__ = ("changed", "gone", "next_rank")

    def __init__(self) -> None:
        self.changed: list[Order] = []
        self.gone: list[int] = []
        self.next_rank = 1

    def give_rank(self, order: Order) -> None:
        """Give ``order`` the next queue position."""
        order.rank = self.next_rank
        self.next_rank += 1
        self.change(order)

    def change(self, order: Order) -> None:
        """``order`` is not as any checkpoint has it."""
        if order.changed_at < 0:
            order.changed_at = len(self.changed)
            self.changed.append(order)

    def forget(self, order: Order) -> None:
        """``order`` is open no more."""
        at = order.changed_at
        if at >= 0:
            last = self.changed.pop()
            if last is not order:
                self.changed[at] = last
                last.changed_at = at
            order.changed_at = -1
        if order.saved:
            self.gone.append(order.offset)

    def drain(self) -> tuple[list[Order], list[int]]:
        """Hand out what there is for a checkpoint, ``changed`` and ``gone``; from here on that is in it."""
        changed, gone = self.changed, self.gone
        self.changed, self.gone = [], []
        for order in changed:
            order.saved = True
            order.changed_at = -1
            order.text = None
        return changed, gone
