"""``forkast order``: place, list, amend and cancel orders over HTTP."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from forkast_streams.cli.client import DEMO_USER, OMS_URL, OmsUrl, Password, UserName, call, session, symbol_id_of

_FILE_WIDTH = 1_000

app = typer.Typer(
    name="order", help="Place, list, amend and cancel orders.", no_args_is_help=True, add_completion=False
)


class Side(StrEnum):
    """Sides of an order."""

    buy = "buy"
    sell = "sell"


class TimeInForce(StrEnum):
    """How long an order is good."""

    gtc = "GTC"
    ioc = "IOC"
    fok = "FOK"
    gtd = "GTD"


class SelfTradePrevention(StrEnum):
    """Which order expires when two of one user would trade."""

    expire_taker = "EXPIRE_TAKER"
    expire_maker = "EXPIRE_MAKER"
    expire_both = "EXPIRE_BOTH"
    none = "NONE"


SymbolName = Annotated[str, typer.Argument(help="Name or id, such as AAPL.")]
SideName = Annotated[Side, typer.Argument(help="buy or sell")]
Quantity = Annotated[str | None, typer.Argument(help="How much, such as 10; left out with --amount.")]
Price = Annotated[str | None, typer.Option(help="Limit price; without one it is a market or stop order.")]
StopPrice = Annotated[str | None, typer.Option("--stop", help="Price at which the order comes in.")]
Amount = Annotated[str | None, typer.Option(help="Amount of money to trade, instead of a quantity.")]
Tif = Annotated[
    TimeInForce | None, typer.Option("--tif", case_sensitive=False, help="How long the order is good. Default: GTC.")
]
ExpiresAt = Annotated[int | None, typer.Option(help="With GTD: when it expires, in milliseconds.")]
PostOnly = Annotated[bool, typer.Option("--post-only", help="Refuse the order if it would trade at once.")]
Display = Annotated[str | None, typer.Option(help="Show only so much at a time.")]
Stp = Annotated[SelfTradePrevention, typer.Option("--stp", case_sensitive=False, help="Self-trade prevention.")]
ClientId = Annotated[str | None, typer.Option("--client-id", help="Your own id; it makes a retry safe.")]
Ioc = Annotated[bool, typer.Option("--ioc", help="Short for --tif IOC.")]


@app.command()
def place(
    symbol: SymbolName,
    side: SideName,
    quantity: Quantity = None,
    price: Price = None,
    stop: StopPrice = None,
    amount: Amount = None,
    tif: Tif = None,
    ioc: Ioc = False,
    expires_at: ExpiresAt = None,
    post_only: PostOnly = False,
    display: Display = None,
    stp: Stp = SelfTradePrevention.expire_taker,
    client_id: ClientId = None,
    replaces: Annotated[str | None, typer.Option(help="Id of an order to cancel with the same command.")] = None,
    url: OmsUrl = OMS_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """Place an order and print its id.

    Example:
        forkast order place AAPL buy 10 --price 101.25
    """
    if ioc and tif not in (None, TimeInForce.ioc):
        raise typer.BadParameter("--ioc is short for --tif IOC; give one of them", param_hint="--ioc")
    unstopped = "MARKET" if price is None else "LIMIT"
    chosen = {
        "type": unstopped if stop is None else "STOP" if price is None else "STOP_LIMIT",
        "side": side.value.upper(),
        "quantity": quantity,
        "price": price,
        "stopPrice": stop,
        "quoteQuantity": amount,
        "timeInForce": "IOC" if ioc else (tif or TimeInForce.gtc).value,
        "expiresAt": expires_at,
        "postOnly": post_only or None,
        "displayQuantity": display,
        "selfTradePrevention": stp.value,
        "clientOrderId": client_id,
    }

    async def run() -> None:
        async with session(user, password) as client:
            body: dict[str, Any] = {"symbolId": await symbol_id_of(client, url, symbol)}
            body |= {name: value for name, value in chosen.items() if value is not None}
            path = "/orders" if replaces is None else f"/orders/{replaces}/replace"
            typer.echo((await call(client, "POST", f"{url}{path}", body))["orderId"])

    asyncio.run(run())


@app.command("cancel-all")
def cancel_all(
    symbol: Annotated[str | None, typer.Argument(help="Name or id; all symbols without it.")] = None,
    url: OmsUrl = OMS_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """Ask for all orders to be cancelled, of one symbol or of all.

    Example:
        forkast order cancel-all AAPL
    """

    async def run() -> None:
        async with session(user, password) as client:
            query = "" if symbol is None else f"?symbolId={await symbol_id_of(client, url, symbol)}"
            typer.echo((await call(client, "DELETE", f"{url}/orders{query}"))["status"])

    asyncio.run(run())


@app.command()
def cancel(
    order_id: Annotated[str, typer.Argument(help="Id of the order.")],
    url: OmsUrl = OMS_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """Ask for an order to be cancelled.

    Example:
        forkast order cancel 123e4567-e89b-12d3-a456-426614174000
    """

    async def run() -> None:
        async with session(user, password) as client:
            typer.echo((await call(client, "DELETE", f"{url}/orders/{order_id}"))["status"])

    asyncio.run(run())


@app.command()
def amend(
    order_id: Annotated[str, typer.Argument(help="Id of the order.")],
    price: Annotated[str | None, typer.Option(help="New limit price; the order loses its place.")] = None,
    quantity: Annotated[str | None, typer.Option(help="New total quantity; a smaller one keeps the place.")] = None,
    url: OmsUrl = OMS_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """Ask for an order to be given another price or total quantity.

    Example:
        forkast order amend 123e4567-e89b-12d3-a456-426614174000 --quantity 5
    """

    async def run() -> None:
        body = {name: value for name, value in (("price", price), ("quantity", quantity)) if value is not None}
        async with session(user, password) as client:
            typer.echo((await call(client, "PATCH", f"{url}/orders/{order_id}", body))["status"])

    asyncio.run(run())


@app.command("list")
def list_orders(
    page: Annotated[int, typer.Option(min=1, help="Page, newest orders first.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Orders a page.")] = 20,
    url: OmsUrl = OMS_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """List orders, newest first.

    Example:
        forkast order list --user bob@example.com
    """

    async def run() -> None:
        async with session(user, password) as client:
            answer = await call(client, "GET", f"{url}/orders?page={page}&limit={limit}")
        table = Table(title=f"Orders of {user}, page {page}", title_justify="left", box=None, padding=(0, 1, 0, 0))
        for column in ("order", "symbol", "side", "price", "filled", "status"):
            # What does not fit goes on in the next line: half a price is worse than none.
            table.add_column(column, overflow="fold", no_wrap=column == "order")
        for order in answer["orders"]:
            price = order["price"] or order["type"].lower()
            filled = f"{order['filledQuantity']}/{order['quantity'] or order['quoteQuantity']}"
            table.add_row(order["id"], str(order["symbolId"]), order["side"], price, filled, order["status"])
        # A file or another program has no width.
        console = Console()
        (console if console.is_terminal else Console(width=_FILE_WIDTH)).print(table)

    asyncio.run(run())
