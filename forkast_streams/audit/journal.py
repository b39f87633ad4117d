"""What clients were told: a file of JSON lines, one an answer.

Each has ``status`` and, where they apply, ``orderId``, ``userId``, ``clientOrderId`` and ``at``, when it came, in
milliseconds. Without ``at`` a ``clientOrderId`` is taken for one that is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from forkast_streams.audit.findings import Findings
from forkast_streams.errors import SetupError

# How long the OMS promises to know a clientOrderId; docs/api.md.
CLIENT_ID_MS = 86_400_000
# An answer comes later than its order was claimed.
_ANSWER_MS_MAX = 60_000


class _Answer(Struct, rename="camel"):
    status: int
    order_id: str | None = None
    user_id: int | None = None
    client_order_id: str | None = None
    at: int | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Journal:
    """The orders that clients were told are accepted.

    Args:
        path: the file.
        findings: where violations go; None: the answers by themselves are judged elsewhere.

    Raises:
        SetupError: the file cannot be read.
    """

    def __init__(self, path: Path, findings: Findings | None = None) -> None:
        self._path = path
        self._users: dict[str, int | None] = {}
        uses = _Uses()
        for answer, order_id, _ in self._orders():
            self._users.setdefault(order_id, answer.user_id)
            if findings is not None:
                findings.looked["I-1"] += 1
                uses.add(answer, order_id)
        if findings is not None:
            uses.check(findings)

    def _orders(self) -> Iterator[tuple[_Answer, str, bytes]]:
        """The answers that acknowledge an order, with its id and the line of the file."""
        try:
            with self._path.open("rb") as file:
                for line in filter(bytes.strip, file):
                    answer = _decode(line)
                    if 200 <= answer.status < 300 and answer.order_id is not None:
                        yield answer, answer.order_id.lower(), line.strip()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise SetupError(
                f"the journal {self._path} cannot be read ({exc}); each line must be a JSON object."
            ) from exc

    def see(self, command: dict[str, Any]) -> str | None:
        """The order id of an input, if it is a new order that a client was told of."""
        order_id = command.get("id")
        if command.get("command") not in (None, "REPLACE") or not isinstance(order_id, str):
            return None
        order_id = order_id.lower()
        # Another user's order of this id is refused, and is none of the journal's.
        is_told = order_id in self._users and self._users[order_id] in (None, command.get("userId"))
        return order_id if is_told else None

    def check_owner(self, accepted: dict[str, Any], findings: Findings) -> str | None:
        """Check that an order, by the data of its ORDER, is that of the user who was told of it; return its id then."""
        order_id, user_id = accepted.get("id"), accepted.get("userId")
        if not isinstance(order_id, str) or order_id not in self._users:
            return None
        told = self._users[order_id]
        if told is not None and told != user_id:
            message = f"order {order_id} was sent by user {told} and is user {user_id}'s in the log."
            findings.violate("I-17", message)
        return order_id

    def check_missing(self, found: set[str], findings: Findings) -> None:
        """Report the orders that are not in the log."""
        if self._users.keys() <= found:
            return
        missing = self._users.keys() - found
        for _, order_id, line in self._orders():
            if order_id in missing:
                missing.discard(order_id)
                text = line.decode(errors="replace")
                findings.violate("I-1", f"order {order_id} was acknowledged and is not in the log: {text}")


class _Uses:
    """Which orders a user's own ids have led to, and when first: lines of several clients come in any order."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, str], tuple[str, int | None]] = {}
        self._of_more: dict[tuple[int, str], dict[str, int | None]] = {}

    def add(self, answer: _Answer, order_id: str) -> None:
        if answer.user_id is None or answer.client_order_id is None:
            return
        key = answer.user_id, answer.client_order_id
        first, at = self._first.setdefault(key, (order_id, answer.at))
        if first == order_id and key not in self._of_more:
            self._first[key] = first, _earlier(at, answer.at)
            return
        orders = self._of_more.setdefault(key, {first: at})
        orders[order_id] = _earlier(orders.get(order_id, answer.at), answer.at)

    def check(self, findings: Findings) -> None:
        """An id leads to the order that it led to before, while that is remembered."""
        for (user_id, client_order_id), orders in self._of_more.items():
            in_time = sorted(orders.items(), key=lambda use: use[1] or 0)
            for (first, began), (second, at) in pairwise(in_time):
                if began is None or at is None or at - began < CLIENT_ID_MS - _ANSWER_MS_MAX:
                    message = f"clientOrderId {client_order_id} of user {user_id} was answered with {first} and"
                    findings.violate("I-19", f"{message} with {second}.")


def _earlier(one: int | None, other: int | None) -> int | None:
    """None where one of them is not known."""
    return None if one is None or other is None else min(one, other)
