"""Asks the engine to change orders: to cancel one, many or all of them, now or after a while, and to amend one.

What is answered says that the log has the request; what becomes of it is decided by the engine. What is refused here is
refused with the error that the client is answered with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forkast_streams.engine.commands import LIMIT
from forkast_streams.errors import ApiError, ForkastError
from forkast_streams.orders.command_log import CommandLog, SymbolCommand
from forkast_streams.orders.commands import amend_command, cancel_after_command, cancel_all_command, cancel_command
from forkast_streams.orders.finding import OrderFinder
from forkast_streams.orders.ids import random_hex
from forkast_streams.orders.requests import AmendOrder, amendment
from forkast_streams.orders.symbols import Symbols


@dataclass(frozen=True, slots=True)
class Requested:
    """A change of an order that the log has; ``command_id`` comes back on the events that answer it."""

    order_id: str
    command_id: str


class OrderChanger:
    """Changes orders of users; an order is named by its id or ``client:`` and its client order id."""

    def __init__(self, log: CommandLog, symbols: Symbols, finder: OrderFinder) -> None:
        self._log = log
        self._symbols = symbols
        self._finder = finder

    async def cancel(self, order_id: str, user_id: int) -> Requested:
        """Ask to cancel an order.

        Raises:
            ApiError: as `OrderFinder.find_open`; 503, the log did not acknowledge.
            Unavailable: as `OrderFinder.find_open`.
        """
        requested, command = await self._cancel_command(order_id, user_id)
        await self._log.append(*command)
        return requested

    async def cancel_many(self, order_ids: Iterable[str], user_id: int) -> list[Requested | ForkastError]:
        """Ask to cancel orders, each by itself, with results in the order of the ids and the errors of `cancel`."""
        results: list[Requested | ForkastError] = []
        commands, places = [], []
        for order_id in order_ids:
            try:
                requested, command = await self._cancel_command(order_id, user_id)
            except ForkastError as exc:
                results.append(exc)
                continue
            places.append(len(results))
            commands.append(command)
            results.append(requested)
        for place, taken in zip(places, await self._log.append_all(commands), strict=True):
            if isinstance(taken, ApiError):
                results[place] = taken
        return results

    async def cancel_all(self, symbol_ids: Sequence[int], user_id: int) -> str:
        """Ask to cancel all orders of a user in these symbols; return the id of the commands.

        Raises:
            ApiError: 503, the log did not acknowledge all of them.
        """
        command_id = random_hex()
        await self._append_all([(one, cancel_all_command(one, user_id, command_id)) for one in symbol_ids])
        return command_id

    async def cancel_after(self, symbol_ids: Sequence[int], user_id: int, timeout_s: int) -> str:
        """Set a user's dead-man's switch in these symbols, or with 0 clear it; return the id of the commands.

        Raises:
            ApiError: 503, the log did not acknowledge all of them.
        """
        command_id = random_hex()
        timeout_ms = timeout_s * 1000
        await self._append_all(
            [(one, cancel_after_command(one, user_id, timeout_ms, command_id)) for one in symbol_ids]
        )
        return command_id

    async def amend(self, request: AmendOrder, order_id: str, user_id: int) -> Requested:
        """Ask to give an order another price, stop price or total quantity.

        Raises:
            ApiError: 400, a rule is broken; as `OrderFinder.find_open`; 503, the log did not acknowledge.
            Unavailable: as `OrderFinder.find_open`.
        """
        order = await self._finder.find_open(order_id, user_id)
        symbol = await self._symbols.get(order["symbolId"])
        # Whose stop price was reached is a limit order.
        order_type = order["type"] if order["triggeredAt"] is None else LIMIT
        requested = Requested(order["id"], random_hex())
        command = amendment(request, requested.order_id, user_id, order_type, symbol, requested.command_id)
        await self._log.append(symbol.id, amend_command(command))
        return requested

    async def _cancel_command(self, order_id: str, user_id: int) -> tuple[Requested, SymbolCommand]:
        order = await self._finder.find_open(order_id, user_id)
        requested = Requested(order["id"], random_hex())
        command = cancel_command(order["symbolId"], requested.order_id, user_id, requested.command_id)
        return requested, (order["symbolId"], command)

    async def _append_all(self, commands: Sequence[SymbolCommand]) -> None:
        for taken in await self._log.append_all(commands):
            if isinstance(taken, ApiError):
                # All of them are to be sent again: that cancels, or sets, once more. What comes late of the first ones
                # cancels also what was placed meanwhile, as a client is told.
                raise taken
