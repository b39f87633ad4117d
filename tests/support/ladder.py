"""A notation for books and commands that a trader reads at once.

A book is a ladder: bids on the left of the price, asks on the right, in each queue the first to trade first.

              | 101.00 | 5 bob, 2+8 cyd
      2 dan  |  99.00 |
             |  98.00 | (4 eve)

``2+8`` is an iceberg order that shows 2 and hides 8, ``(4 eve)`` a stop order that waits for its stop price. Names
are orders and their users, in three letters: ``bob2`` is another order of the user ``bob``. Commands, and lines that
come of them (not in the same row of a test):

    ann buys 10 @ 101.00             ann buys 5 @ 101.00 from bob
    ann sells 3 @ 99.00 IOC          ann sells 2 @ 99.00 to dan
    ann buys 10 at market            ann cancelled 1 (IOC)
    ann buys for 99.50 at market     ann expired 1 (SELF_TRADE)
    ann sells 3 @ 98.00 stop 99.00   ann triggered at 98.50
    ann sells 8 @ 99.00 shows 2      ann shows 2 @ 99.00
    ann buys 1 @ 9.00 until 50       ann cancelled all 2
    ann buys 1 @ 9.00 post-only      ann cancels all in 20
    ann buys 1 @ 9.00 NONE
    ann buys 1 @ 9.00 for ann2
    bob cancels                      bob amended to 3 @ 101.00, keeps place
    cyd cancels bob                  cyd rejected: UNKNOWN_ORDER
    bob amends to 3 @ 102.00
    bob amends to @ 102.00
    bob amends to stop 99.50
    ann cancels all
    set status=HALTED                symbol rejected: SYMBOL_IN_USE
    heartbeat

``until`` and ``in`` are milliseconds after the first command; a command takes one. ``NONE`` stands for any mode of
self-trade prevention; ``for ann2`` replaces that order.
"""

from __future__ import annotations

import re
import uuid
from decimal import Decimal
from typing import Any, NamedTuple

from tests.support.exchanges import Event, Exchange, Resting
from tests.support.flows import START_MS, symbol_command

SYMBOL = 1

_NEW = re.compile(
    r"(?P<name>\w+) (?P<verb>buys|sells) (?:for (?P<amount>\S+)|(?P<quantity>\S+?))(?: at (?P<market>market))?"
    r"(?: @ (?P<price>\S+))?(?: stop (?P<stop>\S+))?(?: shows (?P<display>\S+))?(?: (?P<tif>IOC|FOK|GTD))?"
    r"(?: until (?P<until>\d+))?(?P<post> post-only)?(?: (?P<mode>EXPIRE_\w+|NONE))?(?: for (?P<replaced>\w+))?"
)
_ALL = re.compile(r"(\w+) cancels all(?: in (\d+))?")
_CANCEL = re.compile(r"(\w+) cancels(?: (\w+))?")
_AMEND = re.compile(r"(\w+) amends(?: (\w+))? to(?: (?!stop)([^@\s]+))?(?: @ (\S+))?(?: stop (\S+))?")
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
            assert not order.hidden, "only plain orders can be placed so"
            self.tell(f"{order.name} {verb} {order.quantity} @ {order.price}")
        assert self.show() == render(parse(book)), "the ladder is no possible book"

    def tell(self, command: str) -> list[str]:
        """Send a command; return what came of it."""
        return [line for event in self.exchange.process(self._command(command)) for line in _lines(event)]

    def show(self) -> str:
        """The book as a ladder."""
        resting = [order._replace(name=_name(order.name)) for order in self.exchange.resting(SYMBOL)]
        waiting = [order._replace(name=f"{_name(order.name)})") for order in self.exchange.waiting(SYMBOL)]
        return render(resting + sorted(waiting))

    def _command(self, text: str) -> dict[str, Any]:
        if found := _NEW.fullmatch(text):
            return _new_order(found.groupdict())
        if found := _ALL.fullmatch(text):
            user, timeout = found.groups()
            command = {"symbolId": SYMBOL, "userId": _user_id(user)}
            return command | (
                {"command": "CANCEL_AFTER", "timeout": int(timeout)} if timeout else {"command": "CANCEL_ALL"}
            )
        if text == "heartbeat":
            return {"command": "HEARTBEAT", "symbolId": SYMBOL}
        if found := _CANCEL.fullmatch(text):
            user, order = found.groups()
            return _change("CANCEL", user, order or user)
        if found := _AMEND.fullmatch(text):
            user, order, quantity, price, stop = found.groups()
            changes = {"quantity": quantity, "price": price, "stopPrice": stop}
            return _change("AMEND", user, order or user) | {k: v for k, v in changes.items() if v is not None}
        found = _SET.fullmatch(text)
        assert found, f"not in the notation: {text}"
        return symbol_command(SYMBOL, **{found[1]: found[2]})


class Rule(NamedTuple):
    """In ``book``, ``commands`` have this ``outcome`` and leave the book ``after``; no ``after``: as it was."""

    fact: str
    book: str
    commands: list[str]
    outcome: list[str]
    after: str | None = None


def keeps(rule: Rule, exchange: Exchange) -> None:
    """Assert that an exchange keeps to a rule."""
    ladder = Ladder(exchange)
    ladder.place(rule.book)
    outcome = [line for command in rule.commands for line in ladder.tell(command)]
    assert outcome == rule.outcome
    assert ladder.show() == render(parse(rule.book if rule.after is None else rule.after))


def parse(book: str) -> list[Resting]:
    """The orders of a ladder, each queue first come first."""
    orders = []
    for line in filter(None, map(str.strip, book.splitlines())):
        bids, price, asks = line.split("|")
        for side, queue in (("BUY", bids), ("SELL", asks)):
            for order in filter(None, map(str.strip, queue.split(","))):
                quantity, name = order.lstrip("(").split()
                shown, _, hidden = quantity.partition("+")
                orders.append(Resting(side, Decimal(price.strip()), Decimal(shown), name, Decimal(hidden or 0)))
    return orders


def render(orders: list[Resting]) -> str:
    """A ladder of ``orders``, highest price first, queues in the order given."""
    queues: dict[Decimal, dict[str, list[str]]] = {}
    for order in orders:
        level = queues.setdefault(order.price, {"BUY": [], "SELL": []})
        hidden = f"+{order.hidden:f}" if order.hidden else ""
        level[order.side].append(f"{'(' * order.name.endswith(')')}{order.quantity:f}{hidden} {order.name}")
    return "\n".join(
        f"{', '.join(level['BUY']):>24} | {price:>9.2f} | {', '.join(level['SELL'])}".rstrip()
        for price, level in sorted(queues.items(), reverse=True)
    )


def _new_order(words: dict[str, str | None]) -> dict[str, Any]:
    name, price, stop = str(words["name"]), words["price"], words["stop"]
    unstopped = "MARKET" if words["market"] else "LIMIT"
    stopped = "STOP" if price is None else "STOP_LIMIT"
    fields = {
        "quantity": words["quantity"],
        "quoteQuantity": words["amount"],
        "price": price,
        "stopPrice": stop,
        "displayQuantity": words["display"],
        "timeInForce": words["tif"] or ("GTD" if words["until"] else None),
        "expiresAt": None if words["until"] is None else START_MS + int(words["until"]),
        "postOnly": True if words["post"] else None,
        "selfTradePrevention": words["mode"],
    }
    order: dict[str, Any] = {
        "id": _order_id(name),
        "userId": _user_id(name),
        "symbolId": SYMBOL,
        "type": unstopped if stop is None else stopped,
        "side": "BUY" if words["verb"] == "buys" else "SELL",
    }
    if words["replaced"] is not None:
        order |= {"command": "REPLACE", "orderId": _order_id(words["replaced"])}
    return order | {field: value for field, value in fields.items() if value is not None}


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
            left = data["quantity"] or f"{data['quoteQuantity']} of the amount"
            return [f"{_name(data['id'])} {data['status'].lower()} {left} ({data['reason']})"]
        case "TRIGGER":
            return [f"{_name(data['id'])} triggered at {data['lastPrice']}"]
        case "SHOW":
            return [f"{_name(data['id'])} shows {data['quantity']} @ {data['price']}"]
        case "CANCEL_ALL":
            return [f"{_user_name(data['userId'])} cancelled all {data['count']}"]
        case "AMEND":
            place = "keeps place" if data["keptPriority"] else "loses place"
            price = f" @ {data['price']}" if data["price"] else ""
            stop = f" stop {data['stopPrice']}" if "stopPrice" in data else ""
            return [f"{_name(data['id'])} amended to {data['quantity']}{price}{stop}, {place}"]
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
