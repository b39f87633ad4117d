"""Changes that traders ask for: which commands the log gets, and what each order of a batch is answered."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest

from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.symbols import Symbol
from forkast_streams.errors import ApiError, ForkastError, Unavailable
from forkast_streams.orders.changing import OrderChanger, Requested
from forkast_streams.orders.command_log import SymbolCommand
from forkast_streams.orders.requests import AmendOrder

USER = 7
STOP_LIMIT, ENDED, AWAY = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(1, 4))


class Servers:
    """The log, the finder and the symbols.

    Attributes:
        commands: what the log has taken.
        refused: the places in the next batch that the log does not acknowledge.
        triggered_at: of the orders that are found.
    """

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.refused: set[int] = set()
        self.triggered_at: str | None = None

    async def append(self, symbol_id: int, command: bytes) -> int:
        self.commands.append(msgspec.json.decode(command))
        assert self.commands[-1]["symbolId"] == symbol_id
        return 0

    async def append_all(self, commands: Sequence[SymbolCommand]) -> list[int | ApiError]:
        answers: list[int | ApiError] = []
        for place, (symbol_id, command) in enumerate(commands):
            if place in self.refused:
                answers.append(ApiError(503, "LOG_UNAVAILABLE", "not acknowledged"))
            else:
                answers.append(await self.append(symbol_id, command))
        return answers

    async def find_open(self, order_id: str, user_id: int) -> dict[str, Any]:
        assert user_id == USER
        if order_id == ENDED:
            raise ApiError(409, "ALREADY_CLOSED", "it has ended")
        if order_id == AWAY:
            raise Unavailable("the database is away")
        return {"id": order_id, "symbolId": 3, "type": "STOP_LIMIT", "triggeredAt": self.triggered_at}

    async def get(self, symbol_id: int) -> Symbol:
        return Symbol(DefineSymbol(symbol_id, "SYM", Decimal("0.01"), Decimal(1), "TRADING", None))


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def changer(servers: Servers) -> OrderChanger:
    every = cast("Any", servers)
    return OrderChanger(every, every, every)


async def test_each_cancel_of_a_batch_has_its_own_answer(servers: Servers, changer: OrderChanger) -> None:
    """In the order of the ids, whether the order or the log is what is in the way."""
    others = [f"00000000-0000-4000-8000-0000000001{number:02d}" for number in range(3)]
    servers.refused = {1}
    results = await changer.cancel_many([others[0], ENDED, others[1], AWAY, others[2]], USER)
    assert [_told(one) for one in results] == [others[0], "ALREADY_CLOSED", "LOG_UNAVAILABLE", "Unavailable", others[2]]
    asked = [one for one in results if isinstance(one, Requested)]
    of_user = {"command": "CANCEL", "symbolId": 3, "userId": USER}
    assert servers.commands == [of_user | {"orderId": one.order_id, "commandId": one.command_id} for one in asked]


def _told(result: Requested | ForkastError) -> str:
    if isinstance(result, Requested):
        return result.order_id
    return result.code if isinstance(result, ApiError) else type(result).__name__


async def test_all_orders_are_cancelled_by_one_command_a_symbol(servers: Servers, changer: OrderChanger) -> None:
    """They have one id, and a switch is set in milliseconds."""
    now = await changer.cancel_all([3, 5], USER)
    later = await changer.cancel_after([3, 5], USER, 60)
    assert servers.commands == [
        {"command": "CANCEL_ALL", "symbolId": 3, "userId": USER, "commandId": now},
        {"command": "CANCEL_ALL", "symbolId": 5, "userId": USER, "commandId": now},
        {"command": "CANCEL_AFTER", "symbolId": 3, "userId": USER, "timeout": 60_000, "commandId": later},
        {"command": "CANCEL_AFTER", "symbolId": 5, "userId": USER, "timeout": 60_000, "commandId": later},
    ]
    servers.refused = {1}
    with pytest.raises(ApiError, match="not acknowledged"):
        await changer.cancel_all([3, 5], USER)


async def test_a_stop_order_that_was_triggered_is_amended_as_a_limit_order(
    servers: Servers, changer: OrderChanger
) -> None:
    """Its stop price is behind it."""
    request = msgspec.json.decode(b'{"stopPrice":"99.50"}', type=AmendOrder)
    requested = await changer.amend(request, STOP_LIMIT, USER)
    [command] = servers.commands
    assert (command["orderId"], command["stopPrice"], command["commandId"]) == (
        STOP_LIMIT, "99.5", requested.command_id
    )  # fmt: skip
    servers.triggered_at = "2026-01-01T00:00:00.000Z"
    with pytest.raises(ApiError) as caught:
        await changer.amend(request, STOP_LIMIT, USER)
    assert (caught.value.code, caught.value.field) == ("STOP_PRICE_NOT_ALLOWED", "stopPrice")
    assert len(servers.commands) == 1
