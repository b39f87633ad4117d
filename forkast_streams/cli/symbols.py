"""``forkast symbols``: the reference data of the database, and its way into the log."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from forkast_streams.cli.servers import settings_of_exchange
from forkast_streams.errors import SetupError
from forkast_streams.reference_data import Published, read_symbols, set_status, sync_symbols

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
    rows = asyncio.run(read_symbols(settings_of_exchange()))
    # Rules that no symbol has would only take the room of the others.
    columns = [column for column in _COLUMNS if any(row[column] is not None for row in rows)]
    table = Table(*[Column(column, overflow="fold") for column in columns])
    for row in rows:
        table.add_row(*["" if row[column] is None else str(row[column]) for column in columns])
    Console().print(table)


@app.command()
def sync() -> None:
    """Publish the rules of all symbols into the log, where the engine and every replay see them.

    A symbol that the log knows keeps its status there; halt and resume change it.

    Example:
        forkast symbols sync
    """
    published = asyncio.run(sync_symbols(settings_of_exchange()))
    typer.echo(f"{len(published)} symbols published to the log ({', '.join(one.name for one in published)}).")
    for one in published:
        if one.status not in (None, one.asked_status):
            typer.echo(f"{one.name} stays {one.status}, as the log has it; halt, resume and cancel-only change that.")
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
    if found.status is not None:
        typer.echo(f"{found.name} is {status} from here on in the log.")
    _report([found])


def _report(published: list[Published]) -> None:
    """Say what the engine said.

    Raises:
        SetupError: it goes on with other rules than it was sent.
    """
    silent = [one.name for one in published if not one.is_answered]
    if silent:
        typer.echo(f"No engine has answered yet for {', '.join(silent)}; the commands wait in the log for one.")
    dead = [f"{one.name}: {one.dead}" for one in published if one.dead is not None]
    refused = [f"{one.name}: {one.refusal}" for one in published if one.refusal is not None]
    sentences = []
    if dead:
        sentences.append(f"The engine has not taken the command, and nothing has changed, for {'; '.join(dead)}.")
    if refused:
        sentences.append(
            f"The engine goes on with the rules it had, for {'; '.join(refused)}. The OMS goes by the database: give "
            "it the old values back, or sync again when no order is open."
        )
    if sentences:
        raise SetupError(" ".join(sentences))
