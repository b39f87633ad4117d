"""``forkast order``: place, list, amend and cancel orders over HTTP."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from forkast_streams.cli.client import DEMO_USER, OMS_URL, OmsUrl, Password, UserName, call, session, symbol_id_of

app = typer.Typer(name="order", help="Place, list, amend and cancel orders.", no_args_is_help=True)


class Side(StrEnum):
    """Sides of an order."""

    buy = "buy"
    sell = "sell"


@app.command()
def place(
    symbol: Annotated[str, typer.Argument(help="Name or id, such as AAPL.")],
    side: Annotated[Side, typer.Argument(help="buy or sell")],
    quantity: Annotated[str, typer.Argument(help="How much, such as 10.")],
    price: Annotated[str | None, typer.Option(help="Limit price; without one it is a market order.")] = None,
    ioc: Annotated[bool, typer.Option("--ioc", help="Cancel at once what does not trade at once.")] = False,
    url: OmsUrl = OMS_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """Place an order and print its id.

    Example:
        forkast order place AAPL buy 10 --price 101.25
    """

    async def run() -> None:
        async with session(user, password) as client:
            body: dict[str, Any] = {
                "symbolId": await symbol_id_of(client, url, symbol),
                "type": "MARKET" if price is None else "LIMIT",
                "side": side.value.upper(),
                "quantity": quantity,
                "timeInForce": "IOC" if ioc else "GTC",
            }
            if price is not None:
                body["price"] = price
            typer.echo((await call(client, "POST", f"{url}/orders", body))["orderId"])

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
        table = Table(title=f"Orders of {user}, page {page}")
        table.add_column("order", no_wrap=True)
        for column in ("symbol", "side", "price", "filled", "status"):
            table.add_column(column)
        for order in answer["orders"]:
            price = order["price"] or "market"
            filled = f"{order['filledQuantity']} of {order['quantity']}"
            table.add_row(order["id"], str(order["symbolId"]), order["side"], price, filled, order["status"])
        Console().print(table)

    asyncio.run(run())
