"""``forkast symbols``: the reference data of the database, and its way into the log."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from forkast_streams.cli.servers import settings_of_exchange
from forkast_streams.errors import SetupError
from forkast_streams.reference_data import Published, set_status, sync_symbols
from forkast_streams.storage.postgres import Postgres

app = typer.Typer(
    name="symbols",
    help="List symbols, publish their rules, halt and resume.",
    no_args_is_help=True,
    add_completion=False,
)

SymbolName = Annotated[str, typer.Argument(help="Name or id, such as AAPL.")]
_COLUMNS = ("id", "symbol", "status", "tickSize", "lotSize", "minQuantity", "maxQuantity", "minNotional",
            "priceCollar", "maxOpenOrders")  # fmt: skip


@app.command("list")
def list_symbols() -> None:
    """List the symbols of the database with their rules.

    Example:
        forkast symbols list
    """

    async def run() -> None:
        async with Postgres(settings_of_exchange().database_url) as postgres:
            rows = await postgres.query("symbols")
        # Rules that no symbol has would only take the room of the others.
        columns = [column for column in _COLUMNS if any(row[column] is not None for row in rows)]
        table = Table(*[Column(column, overflow="fold") for column in columns])
        for row in rows:
            table.add_row(*["" if row[column] is None else str(row[column]) for column in columns])
        Console().print(table)

    asyncio.run(run())


@app.command()
def sync() -> None:
    """Publish the rules of all symbols into the log, where the engine and every replay see them.

    Example:
        forkast symbols sync
    """
    published = asyncio.run(sync_symbols(settings_of_exchange()))
    typer.echo(f"{len(published)} symbols published to the log ({', '.join(one.name for one in published)}).")
    _report(published)


@app.command()
def halt(symbol: SymbolName) -> None:
    """Halt a symbol: nothing can be placed, changed or cancelled.

    Example:
        forkast symbols halt AAPL
    """
    _set(symbol, "HALTED")


@app.command()
def resume(symbol: SymbolName) -> None:
    """Let a symbol trade again.

    Example:
        forkast symbols resume AAPL
    """
    _set(symbol, "TRADING")


@app.command("cancel-only")
def cancel_only(symbol: SymbolName) -> None:
    """Let orders of a symbol be cancelled, and nothing else.

    Example:
        forkast symbols cancel-only AAPL
    """
    _set(symbol, "CANCEL_ONLY")


def _set(symbol: str, status: str) -> None:
    found = asyncio.run(set_status(settings_of_exchange(), symbol, status))
    if found is None:
        raise SetupError(f"There is no symbol {symbol!r}; `forkast symbols list` shows those there are.")
    typer.echo(f"{found.name} is {status} from here on in the log.")
    _report([found])


def _report(published: list[Published]) -> None:
    """Say what the engine said.

    Raises:
        SetupError: it goes on with other rules than the database has.
    """
    silent = [one.name for one in published if not one.is_answered]
    if silent:
        typer.echo(f"No engine has answered yet for {', '.join(silent)}; it takes them when one runs.")
    refused = [f"{one.name}: {one.refusal}" for one in published if one.refusal is not None]
    if refused:
        raise SetupError(
            f"The engine goes on with the rules it had, for {'; '.join(refused)}. The OMS goes by the database: give "
            "it the old values back, or let the orders be cancelled (`forkast symbols cancel-only`) and sync again."
        )
