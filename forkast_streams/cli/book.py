"""``forkast book``: an order book in the terminal, live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from forkast_streams.cli.client import (
    DEMO_USER,
    KEEPER_URL,
    OMS_URL,
    KeeperUrl,
    OmsUrl,
    Password,
    UserName,
    call,
    check,
    no_answer,
    session,
    symbol_id_of,
)

_RECONNECT_S = 1.0
# A snapshot is one line: of hundreds of thousands of levels.
_LINE_BYTES_MAX = 64 * 1024 * 1024


class BookView:
    """A book built from a snapshot and changes."""

    def __init__(self) -> None:
        self.sequence = 0
        self.levels: dict[str, dict[str, dict[str, Any]]] = {"buy": {}, "sell": {}}

    def apply(self, message: dict[str, Any]) -> None:
        """Take a message of the stream in; a level's quantity is what it is now, "0" is none."""
        self.sequence = message["orderBookSnapShotId"]
        for side, levels in self.levels.items():
            if message["type"] == "snapshot":
                levels.clear()
            for level in message[side]:
                if level["quantity"] == "0":
                    levels.pop(level["price"], None)
                else:
                    levels[level["price"]] = level

    def table(self, title: str, depth: int) -> Table:
        """The best ``depth`` levels of both sides, bids left and asks right."""
        table = Table(title=f"{title}  #{self.sequence}")
        for column in ("orders", "bid quantity", "bid", "ask", "ask quantity", "orders"):
            table.add_column(column, justify="right")
        bids = sorted(self.levels["buy"].values(), key=_price, reverse=True)[:depth]
        asks = sorted(self.levels["sell"].values(), key=_price)[:depth]
        for row in range(max(len(bids), len(asks))):
            bid, ask = (levels[row] if row < len(levels) else None for levels in (bids, asks))
            left = (str(bid["orders"]), bid["quantity"], f"[green]{bid['price']}[/]") if bid else ("", "", "")
            right = (f"[red]{ask['price']}[/]", ask["quantity"], str(ask["orders"])) if ask else ("", "", "")
            table.add_row(*left, *right)
        return table


def _price(level: dict[str, Any]) -> Decimal:
    return Decimal(level["price"])


def book(
    symbol: Annotated[str, typer.Argument(help="Name or id, such as AAPL.")],
    depth: Annotated[int, typer.Option(min=1, max=100, help="Levels shown.")] = 10,
    once: Annotated[bool, typer.Option("--once", help="Print the book once instead of following it.")] = False,
    keeper_url: KeeperUrl = KEEPER_URL,
    url: OmsUrl = OMS_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """Show the order book of a symbol, live until Ctrl-C.

    Example:
        forkast book AAPL --depth 5
    """

    async def run() -> None:
        console, view = Console(), BookView()
        async with session(user, password, total_s=None) as client:
            symbol_id = await symbol_id_of(client, url, symbol)
            base = f"{keeper_url}/order-book/{symbol_id}"
            if once:
                view.apply(await call(client, "GET", base) | {"type": "snapshot"})
                console.print(view.table(symbol, depth))
                return
            with Live(console=console, refresh_per_second=10) as live:

                def show_break() -> None:
                    live.update(view.table(f"{symbol} (connecting again)", depth))

                async for message in follow(client, f"{base}/stream", show_break):
                    view.apply(message)
                    live.update(view.table(symbol, depth))

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        typer.echo()


async def follow(
    client: aiohttp.ClientSession, url: str, on_break: Callable[[], None], *, pause_s: float = _RECONNECT_S
) -> AsyncIterator[dict[str, Any]]:
    """The stream's messages; after a break, which ``on_break`` is told of, it goes on behind the last one seen.

    Raises:
        ForkastError: nothing answers from the beginning, or the stream is refused; the message says why.
    """
    last_id = event_id = ""
    is_connected = False
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            async with client.get(url, headers=headers, read_bufsize=_LINE_BYTES_MAX) as response:
                # A keeper that is only starting again says so with 5xx.
                if not is_connected or response.status < 500:
                    await check(response)
                response.raise_for_status()
                is_connected = True
                async for line in response.content:
                    if line.startswith(b"id: "):
                        event_id = line[4:].decode().strip()
                    # The last line may be cut off.
                    if line.startswith(b"data: ") and line.endswith(b"\n"):
                        yield json.loads(line[6:])
                        last_id = event_id
        except (aiohttp.ClientError, TimeoutError) as exc:
            if not is_connected:
                raise no_answer(url, exc) from exc
        on_break()
        await asyncio.sleep(pause_s)
