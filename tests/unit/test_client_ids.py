"""Claims of client order ids wait for the database without piling up; what they say is tested with a real one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec

from forkast_streams.errors import Unavailable
from forkast_streams.orders.client_ids import ClientOrderIds


class Postgres:
    """A database that answers a statement when it may.

    Attributes:
        may_answer: whether it does.
        asked: the client order ids of each statement.
    """

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked: list[list[str]] = []

    async def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        if name != "claim_client_ids":
            return []
        rows = msgspec.json.decode(parameters["claims"])
        self.asked.append([row["clientOrderId"] for row in rows])
        if not self.may_answer.is_set():
            await self.may_answer.wait()
            raise Unavailable("it took too long")
        return [row | {"isNew": True, "ageS": 0.0} for row in rows]


async def test_claims_of_requests_that_were_answered_are_not_registered() -> None:
    """While Postgres hangs nothing piles up, and who still waits is served first."""
    postgres = Postgres()
    client_ids = ClientOrderIds(cast("Any", postgres))
    await client_ids.start()

    def claim(client_order_id: str) -> asyncio.Task[Any]:
        return asyncio.create_task(client_ids.claim(1, client_order_id, "order", 1, b"digest"))

    under_way = claim("under way")
    await asyncio.sleep(0.01)
    answered = [claim(f"answered {number}") for number in range(2_000)]
    await asyncio.sleep(0.01)
    for one in answered:
        one.cancel()
    live = claim("live")
    await asyncio.wait(answered)
    postgres.may_answer.set()
    async with asyncio.timeout(5.0):
        assert (await live).order_id == "order"
    assert isinstance(under_way.exception(), Unavailable)
    assert postgres.asked == [["under way"], ["live"]]
    assert not client_ids._waiting
    await client_ids.stop()
