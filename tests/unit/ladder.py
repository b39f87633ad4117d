"""A notation for books and commands that a trader reads at once.

A book is a ladder: bids on the left of the price, asks on the right, in each queue the first to trade first.

              | 101.00 | 5 bob, 3 cyd
      2 dan  |  99.00 |

Names are orders and their users, in three letters: ``bob2`` is another order of the user ``bob``. Commands, and lines
that come of them (not in the same row of a test):

    ann buys 10 @ 101.00             ann buys 5 @ 101.00 from bob
    ann sells 3 @ 99.00 IOC          ann sells 2 @ 99.00 to dan
    ann buys 10 at market            ann cancelled 1 (IOC)
    bob cancels                      bob amended to 3 @ 101.00, keeps place
    cyd cancels bob                  cyd rejected: UNKNOWN_ORDER
    bob amends to 3 @ 102.00
    bob amends to @ 102.00
    set status=HALTED                symbol rejected: SYMBOL_IN_USE
"""

from __future__ import annotations

import re
import uuid
from decimal import Decimal
from typing import Any

from tests.unit.exchanges import Event, Exchange, Resting
from tests.unit.flows import symbol_command

SYMBOL = 1

_NEW = re.compile(r"(\w+) (buys|sells) (\S+?)(?: at (market))?(?: @ (\S+))?( IOC)?")
_CANCEL = re.compile(r"(\w+) cancels(?: (\w+))?")
_AMEND = re.compile(r"(\w+) amends(?: (\w+))? to(?: ([^@\s]+))?(?: @ (\S+))?")
_SET = re.compile(r"set (\w+)=(\S+)")


class Ladder:
    """Speaks ladder with an exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.exchange.process(symbol_command(SYMBOL))

    def place(self, book: str) -> None:
        """Fill the empty book with the orders of a ladder."""
        for order in parse(book):
            verb = "buys" if order.side == "BUY" else "sells"
            self.tell(f"{order.name} {verb} {order.quantity} @ {order.price}")
        assert self.show() == render(parse(book)), "the ladder is no possible book"

    def tell(self, command: str) -> list[str]:
        """Send a command; return what came of it."""
        return [line for event in self.exchange.process(self._command(command)) for line in _lines(event)]

    def show(self) -> str:
        """The book as a ladder."""
        return render([order._replace(name=_name(order.name)) for order in self.exchange.resting(SYMBOL)])

    def _command(self, text: str) -> dict[str, Any]:
        if found := _NEW.fullmatch(text):
            return _new_order(*found.groups())
        if found := _CANCEL.fullmatch(text):
            user, order = found.groups()
            return _change("CANCEL", user, order or user)
        if found := _AMEND.fullmatch(text):
            user, order, quantity, price = found.groups()
            changes = {"quantity": quantity, "price": price}
            return _change("AMEND", user, order or user) | {k: v for k, v in changes.items() if v is not None}
        found = _SET.fullmatch(text)
        assert found, f"not in the notation: {text}"
        return symbol_command(SYMBOL, **{found[1]: found[2]})


def parse(book: str) -> list[Resting]:
    """The orders of a ladder, each queue first come first."""
    orders = []
    for line in filter(None, map(str.strip, book.splitlines())):
        bids, price, asks = line.split("|")
        for side, queue in (("BUY", bids), ("SELL", asks)):
            for order in filter(None, map(str.strip, queue.split(","))):
                quantity, name = order.split()
                orders.append(Resting(side, Decimal(price.strip()), Decimal(quantity), name))
    return orders


def render(orders: list[Resting]) -> str:
    """A ladder of ``orders``, highest price first, queues in the order given."""
    queues: dict[Decimal, dict[str, list[str]]] = {}
    for order in orders:
        level = queues.setdefault(order.price, {"BUY": [], "SELL": []})
        level[order.side].append(f"{order.quantity:f} {order.name}")
    return "\n".join(
        f"{', '.join(level['BUY']):>24} | {price:>9.2f} | {', '.join(level['SELL'])}".rstrip()
        for price, level in sorted(queues.items(), reverse=True)
    )


def _new_order(name: str, verb: str, quantity: str, market: str | None, price: str | None, ioc: str | None) -> Any:
    order: dict[str, Any] = {
        "id": _order_id(name),
        "userId": _user_id(name),
        "symbolId": SYMBOL,
        "type": "MARKET" if market else "LIMIT",
        "side": "BUY" if verb == "buys" else "SELL",
        "quantity": quantity,
    }
    if price is not None:
        order["price"] = price
    if ioc:
        order["timeInForce"] = "IOC"
    return order


def _change(command: str, user: str, order: str) -> dict[str, Any]:
    return {"command": command, "symbolId": SYMBOL, "orderId": _order_id(order), "userId": _user_id(user)}


def _lines(event: Event) -> list[str]:
    kind, data = event
    match kind:
        case "TRADE":
            buyer, seller = _name(data["buyOrderId"]), _name(data["sellOrderId"])
            deal = f"{data['quantity']} @ {data['price']}"
            buys = f"{buyer} buys {deal} from {seller}"
            return [buys if data["takerSide"] == "BUY" else f"{seller} sells {deal} to {buyer}"]
        case "CANCEL":
            return [f"{_name(data['id'])} cancelled {data['quantity']} ({data['reason']})"]
        case "AMEND":
            place = "keeps place" if data["keptPriority"] else "loses place"
            return [f"{_name(data['id'])} amended to {data['quantity']} @ {data['price']}, {place}"]
        case "REJECT":
            who = "symbol" if data["command"] == "SYMBOL" else _user_name(data["userId"])
            return [f"{who} rejected: {data['code']}"]
    return []


def _order_id(name: str) -> str:
    """The name's letters, as they fit into a UUID."""
    return str(uuid.UUID(bytes=name.encode().ljust(16, b"\0")))


def _name(order_id: str) -> str:
    return uuid.UUID(order_id).bytes.rstrip(b"\0").decode()


def _user_id(name: str) -> int:
    user = name.rstrip("0123456789").encode()
    assert len(user) == 3, f"users have three letters, {name} has not"
    return int.from_bytes(user, "big")


def _user_name(user_id: int) -> str:
    return user_id.to_bytes(3, "big").decode()
