"""The commands that make an engine repeat what a LOBSTER file recorded.

A message file says what happened to visible orders, and what to tell an engine follows from it: an order placed is a
limit order, a partial cancellation an amendment to a smaller quantity, a deletion a cancel, and the execution of a
resting order is an immediate-or-cancel order of the other side, which should meet just that order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from forkast_streams.replay.lobster import Message, MessageType

MAKER_USER = 1
TAKER_USER = 2

_TAKES_FROM_ORDER = frozenset({MessageType.REDUCED, MessageType.DELETED, MessageType.EXECUTED})


class Step(NamedTuple):
    """A command and the row of the message file, counted from 0, that it is sent for."""

    row: int
    time_ns: int
    command: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Execution:
    """A visible execution of the file.

    Attributes:
        maker_id: id of the resting order that traded.
        passed_over: whether orders stood before it in the queue, as far as the file shows.
    """

    maker_id: str
    price: Decimal
    quantity: Decimal
    passed_over: bool


@dataclass(frozen=True, slots=True)
class Flow:
    """What to send, and what should come of it.

    Attributes:
        symbol_id: the symbol of all commands.
        command_prefix: the ``commandId`` of the nth command, from 0, is this and n.
        executions: the file's visible executions, by the taker order's id.
        final_levels: the file's own book after its last message: open quantity by side, then price.
        rows: messages in the file.
        skipped: messages that change no visible book.
        unseen: orders that the file only knows from their end.
    """

    symbol_id: int
    command_prefix: str
    steps: list[Step]
    executions: dict[str, Execution]
    final_levels: dict[str, dict[Decimal, Decimal]]
    rows: int
    skipped: int
    unseen: int


def make_flow(messages: Sequence[Message], *, symbol_id: int, run: str) -> Flow:
    """Turn messages into commands for ``symbol_id``.

    Order ids are made of ``run`` and the file's ids: the same run gives the same commands, another run can send the
    same file again.
    """
    maker = _FlowMaker(symbol_id, run)
    arrivals = list(in_order_of_arrival(messages))
    for row, message in arrivals:
        maker.add(row, message)
    return Flow(
        symbol_id=symbol_id,
        command_prefix=maker.command_prefix,
        steps=maker.steps,
        executions=maker.executions,
        final_levels=maker.levels(),
        rows=len(messages),
        skipped=maker.skipped,
        unseen=len(arrivals) - len(messages),
    )


def in_order_of_arrival(messages: Sequence[Message]) -> Iterator[tuple[int, Message]]:
    """The messages with their rows, and before them the orders that the file only knows from their end.

    Those were placed before the file starts or outside its levels. Ids are given in the order of arrival, so each is
    placed just before the first order with a larger id; its size is all that is taken from it later.
    """
    unseen = _unseen_orders(messages)
    inserted: dict[int, list[Message]] = {}
    for order_id, row in _arrival_rows(messages, {order_id: row for order_id, (row, _) in unseen.items()}).items():
        inserted.setdefault(row, []).append(unseen[order_id][1]._replace(time_ns=messages[row].time_ns))
    for row, message in enumerate(messages):
        for order in inserted.get(row, ()):
            yield row, order
        yield row, message


def _unseen_orders(messages: Sequence[Message]) -> dict[int, tuple[int, Message]]:
    """For each order that is never placed the row that first knows it, and a message that would place it."""
    placed: set[int] = set()
    unseen: dict[int, tuple[int, Message]] = {}
    for row, message in enumerate(messages):
        order_id = message.order_id
        if message.type is MessageType.PLACED:
            placed.add(order_id)
        elif message.type in _TAKES_FROM_ORDER and order_id not in placed:
            first_row, order = unseen.get(order_id, (row, message._replace(type=MessageType.PLACED, size=0)))
            unseen[order_id] = first_row, order._replace(size=order.size + message.size)
    return unseen


def _arrival_rows(messages: Sequence[Message], first_rows: dict[int, int]) -> dict[int, int]:
    """For each order, by rising id, the first row that places a larger id, or its own first row if that is earlier.

    Those with an id below all that are placed at first were there before the file starts: row 0.
    """
    rows = {order_id: first_rows[order_id] for order_id in sorted(first_rows)}
    waiting = list(reversed(rows))
    placing = [row for row, message in enumerate(messages) if message.type is MessageType.PLACED]
    for row in placing:
        while waiting and waiting[-1] < messages[row].order_id:
            order_id = waiting.pop()
            rows[order_id] = 0 if row == placing[0] else min(row, rows[order_id])
    return rows


class _FlowMaker:
    """The commands so far, and the queues that they should lead to."""

    def __init__(self, symbol_id: int, run: str) -> None:
        digest = hashlib.sha256(run.encode()).hexdigest()
        self._symbol_id = symbol_id
        self._ids_prefix = f"{digest[:8]}-{digest[8:12]}"
        self._totals: dict[int, int] = {}
        self._queues: dict[tuple[str, Decimal], dict[int, int]] = {}
        self.command_prefix = f"lobster-{digest[:12]}-"
        self.steps: list[Step] = []
        self.executions: dict[str, Execution] = {}
        self.skipped = 0

    def add(self, row: int, message: Message) -> None:
        """Add the commands for one message."""
        match message.type:
            case MessageType.PLACED:
                self._place(row, message)
            case MessageType.REDUCED:
                self._take(message)
                self._totals[message.order_id] -= message.size
                self._resize(row, message, message.order_id, self._totals[message.order_id])
            case MessageType.DELETED:
                self._take(message)
                self._send(row, message, self._change("CANCEL", message.order_id))
            case MessageType.EXECUTED:
                self._execute(row, message)
            case _:
                self.skipped += 1

    def levels(self) -> dict[str, dict[Decimal, Decimal]]:
        """Open quantity by side, then price."""
        levels: dict[str, dict[Decimal, Decimal]] = {"BUY": {}, "SELL": {}}
        for (side, price), queue in self._queues.items():
            if queue:
                levels[side][price] = Decimal(sum(queue.values()))
        return levels

    def _place(self, row: int, message: Message) -> None:
        self._totals[message.order_id] = message.size
        self._queue(message)[message.order_id] = message.size
        self._send(row, message, self._limit_order(message, self._maker_id(message.order_id), MAKER_USER, "GTC"))

    def _execute(self, row: int, message: Message) -> None:
        passed_over = self._pass_over(row, message)
        self._take(message)
        taker_id = f"{self._ids_prefix}-5000-8000-{row:012d}"
        maker_id = self._maker_id(message.order_id)
        self.executions[taker_id] = Execution(maker_id, message.price, Decimal(message.size), passed_over)
        taker = message._replace(side="SELL" if message.side == "BUY" else "BUY")
        self._send(row, message, self._limit_order(taker, taker_id, TAKER_USER, "IOC"))

    def _pass_over(self, row: int, message: Message) -> bool:
        """Send the orders before the one that traded to the back of their queue; return whether there are any.

        Nasdaq passed them over for a reason that the file does not show. Left where they are, each such difference
        would grow into many. An order loses its place by growing, and keeps the new one when it shrinks again.
        """
        queue = self._queue(message)
        if message.order_id not in queue:
            return False
        waiting = list(queue)
        before = waiting[: waiting.index(message.order_id)]
        for order_id in before:
            queue[order_id] = queue.pop(order_id)
            self._resize(row, message, order_id, self._totals[order_id] + 1)
            self._resize(row, message, order_id, self._totals[order_id])
        return bool(before)

    def _take(self, message: Message) -> None:
        queue = self._queue(message)
        left = queue.get(message.order_id, 0) - message.size
        if left > 0 and message.type is not MessageType.DELETED:
            queue[message.order_id] = left
        else:
            queue.pop(message.order_id, None)

    def _queue(self, message: Message) -> dict[int, int]:
        """Open quantity by order id at the message's price, first come first."""
        return self._queues.setdefault((message.side, message.price), {})

    def _resize(self, row: int, message: Message, order_id: int, total: int) -> None:
        self._send(row, message, self._change("AMEND", order_id) | {"quantity": total})

    def _send(self, row: int, message: Message, command: dict[str, Any]) -> None:
        ids = {"symbolId": self._symbol_id, "commandId": f"{self.command_prefix}{len(self.steps)}"}
        self.steps.append(Step(row, message.time_ns, command | ids))

    def _change(self, command: str, order_id: int) -> dict[str, Any]:
        return {"command": command, "orderId": self._maker_id(order_id), "userId": MAKER_USER}

    def _limit_order(self, message: Message, order_id: str, user_id: int, time_in_force: str) -> dict[str, Any]:
        return {
            "id": order_id,
            "userId": user_id,
            "type": "LIMIT",
            "side": message.side,
            "quantity": message.size,
            "price": str(message.price),
            "timeInForce": time_in_force,
        }

    def _maker_id(self, order_id: int) -> str:
        """A UUID whose last twelve digits are the file's own order id."""
        return f"{self._ids_prefix}-4000-8000-{order_id:012d}"
