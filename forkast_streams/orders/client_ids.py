"""Client order ids: one order for each id of a user, for 24 hours, whatever crashes.

The registry is a table with the user and the id as its key. An id is claimed there, with the order id and a digest of
the request, before the order goes to the log. If the process dies in between, the retry finds the claim and sends the
same order id again, and the engine takes an order id once; if the log has the order already, nothing is sent.
Concurrent claims are made in one statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from mode import Service

from forkast_streams.errors import Unavailable
from forkast_streams.storage.postgres import Postgres

log = logging.getLogger(__name__)

_AT_ONCE_MAX = 500
# A claim that met another one in the same moment is not seen by its own statement; the next one sees it.
_ATTEMPTS_MAX = 5
_CLEAN_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What is registered for a user's client order id.

    Attributes:
        is_new: whether this claim registered it.
        age_s: seconds since then.
    """

    order_id: str
    symbol_id: int
    digest: bytes
    is_new: bool
    age_s: float


@dataclass(slots=True)
class _Waiting:
    row: dict[str, Any]
    claimed: asyncio.Future[Claim]
    attempts: int = 0

    @property
    def key(self) -> tuple[int, str]:
        return self.row["userId"], self.row["clientOrderId"]


class ClientOrderIds(Service):
    """The registry."""

    def __init__(self, postgres: Postgres, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._postgres = postgres
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()

    async def claim(self, user_id: int, client_order_id: str, order_id: str, symbol_id: int, digest: bytes) -> Claim:
        """Register ``order_id`` for the id, or return what was registered in the last 24 hours.

        Raises:
            Unavailable: the database is out of reach; the id may be registered or not.
        """
        row = {
            "userId": user_id,
            "clientOrderId": client_order_id,
            "orderId": order_id,
            "symbolId": symbol_id,
            "digest": digest.hex(),
        }
        waiting = _Waiting(row, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        return await waiting.claimed

    async def find(self, user_id: int, client_order_id: str) -> str | None:
        """The id of the user's newest order with this client order id.

        Raises:
            Unavailable: the database is out of reach.
        """
        known = await self._known(user_id, client_order_id)
        return None if known is None else known["orderId"]

    async def is_claimed(self, user_id: int, client_order_id: str) -> bool:
        """Whether the id was registered in the last 24 hours, so that a request with it makes no order.

        Raises:
            Unavailable: the database is out of reach.
        """
        known = await self._known(user_id, client_order_id)
        return known is not None and known["isClaimed"]

    async def _known(self, user_id: int, client_order_id: str) -> dict[str, Any] | None:
        rows = await self._postgres.query("order_id_of_client", user_id=user_id, client_order_id=client_order_id)
        return rows[0] if rows else None

    @Service.task
    async def _claim_all(self) -> None:
        while not self.should_stop:
            if not self._waiting:
                self._wake.clear()
                await self.wait_for_stopped(self._wake)
                continue
            batch = self._next_batch()
            if not batch:
                continue
            try:
                await self._claim_batch(batch)
            except Unavailable as exc:
                _fail(batch, exc)
            except Exception as exc:
                log.exception("client order ids could not be claimed")
                _fail(batch, Unavailable("client order ids cannot be checked now; send the request again"))
                del exc

    def _next_batch(self) -> list[_Waiting]:
        """The longest waiting claims, one for each id: a statement cannot change a row twice.

        Those of requests that have been answered, because it took too long, go: nobody wants their ids registered, and
        while Postgres hangs they would pile up before those that somebody waits for.
        """
        batch: dict[tuple[int, str], _Waiting] = {}
        rest = []
        for waiting in self._waiting:
            if waiting.claimed.done():
                continue
            if waiting.key in batch or len(batch) >= _AT_ONCE_MAX:
                rest.append(waiting)
            else:
                batch[waiting.key] = waiting
        self._waiting = rest
        return list(batch.values())

    async def _claim_batch(self, batch: list[_Waiting]) -> None:
        claims = msgspec.json.encode([waiting.row for waiting in batch]).decode()
        rows = await self._postgres.query("claim_client_ids", claims=claims)
        found = {(row["userId"], row["clientOrderId"]): row for row in rows}
        for waiting in batch:
            row = found.get(waiting.key)
            if row is not None:
                claim = Claim(row["orderId"], row["symbolId"], bytes.fromhex(row["digest"]), row["isNew"], row["ageS"])
                if not waiting.claimed.done():
                    waiting.claimed.set_result(claim)
            elif waiting.attempts < _ATTEMPTS_MAX:
                waiting.attempts += 1
                self._waiting.append(waiting)
            else:
                _fail([waiting], Unavailable("the client order id is being used elsewhere; send the request again"))

    @Service.timer(_CLEAN_EVERY_S)
    async def _clean(self) -> None:
        try:
            await self._postgres.query("forget_client_ids")
        except Unavailable as exc:
            log.warning("old client order ids stay for now: %s", exc)


def _fail(batch: Iterable[_Waiting], exc: Exception) -> None:
    for waiting in batch:
        if not waiting.claimed.done():
            waiting.claimed.set_exception(exc)
