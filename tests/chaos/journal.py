"""What clients asked for and were told, for the limits of a scenario and for ``forkast audit --journal``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

PLACE = "place"
# An order may be filled, expired or not yet in the tables when its owner wants to change it.
_CHANGE_STATUSES = frozenset({200, 202, 404, 409})


@dataclass(frozen=True, slots=True)
class Order:
    """An order of which a client was told an id."""

    id: str
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request as its client saw it.

    Attributes:
        at: monotonic seconds at which it was sent.
        status: 0 means that no answer came; of a batch the worst of its elements' if one failed.
        kind: such as ``place``, ``repeat``, ``amend``.
        orders: the orders it has placed.
    """

    at: float
    seconds: float
    status: int
    kind: str
    user_id: int
    orders: tuple[Order, ...] = ()


@dataclass(slots=True)
class Journal:
    """All requests of a scenario."""

    requests: list[Request] = field(default_factory=list)

    def acknowledged(self) -> list[str]:
        """Ids of the orders that clients were told of."""
        return [order.id for request in self.requests for order in request.orders]

    def statuses(self) -> Counter[int]:
        """How often each status was answered."""
        return Counter(request.status for request in self.requests)

    def kinds(self) -> Counter[str]:
        """How many requests of each kind were taken."""
        return Counter(request.kind for request in self.requests if 200 <= request.status < 300)

    def unexpected(self, allowed: Set[int]) -> Counter[tuple[str, int]]:
        """The requests with another answer, by kind and status; what places orders must be answered as ``allowed``."""
        return Counter(
            (request.kind, request.status)
            for request in self.requests
            if request.status not in allowed and (request.kind == PLACE or request.status not in _CHANGE_STATUSES)
        )

    def longest(self) -> Request | None:
        """The request that its client waited for longest."""
        return max(self.requests, key=lambda request: request.seconds, default=None)

    def write(self, path: Path) -> None:
        """Write what ``forkast audit --journal`` reads."""
        with path.open("w") as file:
            for request in self.requests:
                for order in request.orders:
                    answer = {"status": request.status, "orderId": order.id, "userId": request.user_id}
                    if order.client_order_id is not None:
                        answer["clientOrderId"] = order.client_order_id
                    file.write(json.dumps(answer) + "\n")
