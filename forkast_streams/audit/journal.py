"""What clients were told: a file of JSON lines, one an answer.

Each has ``status`` and, where they apply, ``orderId``, ``userId`` and ``clientOrderId``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from forkast_streams.audit.findings import Findings
from forkast_streams.errors import SetupError


class _Answer(Struct, rename="camel"):
    status: int
    order_id: str | None = None
    user_id: int | None = None
    client_order_id: str | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Journal:
    """The orders that clients were told are accepted.

    Args:
        path: the file.
        findings: where violations go.

    Raises:
        SetupError: the file cannot be read.
    """

    def __init__(self, path: Path, findings: Findings) -> None:
        self._findings = findings
        self._users: dict[str, int | None] = {}
        self._missing: dict[str, str] = {}
        self._by_client_id: dict[tuple[int, str], str] = {}
        try:
            with path.open("rb") as file:
                for line in file:
                    if line.strip():
                        self._add(_decode(line), line.decode().strip())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise SetupError(f"the journal {path} cannot be read ({exc}); each line must be a JSON object.") from exc

    def _add(self, answer: _Answer, line: str) -> None:
        if not 200 <= answer.status < 300 or answer.order_id is None:
            return
        order_id = answer.order_id.lower()
        self._findings.looked["I-1"] += 1
        self._users.setdefault(order_id, answer.user_id)
        self._missing.setdefault(order_id, line)
        if answer.user_id is None or answer.client_order_id is None:
            return
        first = self._by_client_id.setdefault((answer.user_id, answer.client_order_id), order_id)
        if first != order_id:
            message = f"clientOrderId {answer.client_order_id} of user {answer.user_id} was answered with {first} and"
            self._findings.violate("I-19", f"{message} with {order_id}.")

    def see(self, command: dict[str, Any], findings: Findings) -> str | None:
        """Take note of an input; return its order id if a client was told of it."""
        order_id = command.get("id")
        if not isinstance(order_id, str) or (order_id := order_id.lower()) not in self._users:
            return None
        told = self._users[order_id]
        if told is not None and told != command.get("userId"):
            message = f"order {order_id} was sent by user {told} and is user {command.get('userId')}'s in the log."
            findings.violate("I-17", message)
        return order_id

    def check_missing(self, found: set[str]) -> None:
        """Report the orders that are not in the log."""
        for order_id, line in self._missing.items():
            if order_id not in found:
                self._findings.violate("I-1", f"order {order_id} was acknowledged and is not in the log: {line}")
