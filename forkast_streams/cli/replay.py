"""``forkast replay``: recorded order flow of a real exchange, sent to this one and held against the recording."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from forkast_streams.cli.servers import settings_of_exchange
from forkast_streams.compiled import require_fresh
from forkast_streams.config import Settings
from forkast_streams.errors import SetupError
from forkast_streams.reference_data import read_symbols
from forkast_streams.replay.flow import Flow, make_flow
from forkast_streams.replay.lobster import BookState, Message, read_book_states, read_messages
from forkast_streams.replay.report import ReplayReport, Summary
from forkast_streams.replay.session import ReplaySession, open_session

app = typer.Typer(
    name="replay", help="Replay recorded order flow of a real exchange.", no_args_is_help=True, add_completion=False
)
console = Console(stderr=True)


@app.callback()
def replay() -> None:
    """Replay recorded order flow of a real exchange."""


@app.command()
def lobster(
    file: Annotated[Path, typer.Argument(help="LOBSTER message file, .csv or .csv.xz.")],
    symbol: Annotated[str, typer.Option(help="Symbol to trade in, by name or id; its book should be empty.")],
    speed: Annotated[str, typer.Option(help="Times as fast as recorded: 1, 10, ..., or max.")] = "max",
    orderbook: Annotated[
        Path | None, typer.Option(help="Order book file of the same recording, to compare the book with.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Name that order ids are made of; the same name repeats them. Default: the time.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Send a LOBSTER recording as commands and report how well the exchange reproduces it.

    Example:
        forkast replay lobster AAPL_2012-06-21_34200000_37800000_message_50.csv.xz --symbol AAPL
    """
    require_fresh()
    times = _speed(speed)
    name = run or datetime.now(UTC).isoformat(timespec="milliseconds")
    messages = read_messages(file)
    states = read_book_states(orderbook) if orderbook else []
    if orderbook and len(states) != len(messages):
        raise SetupError(f"{orderbook} has {len(states)} rows and {file} has {len(messages)}; they must be a pair.")
    console.print(f"Run {name}: {len(messages):,} messages from {file.name} for {symbol}.", highlight=False)
    summary, seconds = asyncio.run(_replay(settings_of_exchange(), symbol, messages, states, name, times))
    if as_json:
        typer.echo(json.dumps({"run": name, "seconds": round(seconds, 3)} | asdict(summary)))
    else:
        Console().print(_table(summary, seconds))


async def _replay(
    settings: Settings, symbol: str, messages: list[Message], states: list[BookState], run: str, speed: float | None
) -> tuple[Summary, float]:
    """Replay; return the figures and the seconds from the first command to the last answer."""
    symbol_id = await _symbol_id(settings, symbol)
    flow = make_flow(messages, symbol_id=symbol_id, run=run)
    async with open_session(settings.broker_list, symbol_id) as session:
        report = await _start_report(session, symbol, flow, states)
        started = perf_counter()
        with _progress() as bar:
            task = bar.add_task("Commands answered", total=len(flow.steps))
            await session.run(flow, report, speed=speed, progress=lambda answered: bar.update(task, completed=answered))
        return report.summary(), perf_counter() - started


async def _start_report(session: ReplaySession, symbol: str, flow: Flow, states: list[BookState]) -> ReplayReport:
    with console.status(f"Reading the log of {symbol}"):
        state = await session.read_symbol()
    if state.status != "TRADING":
        raise SetupError(f"symbol {symbol} is {state.status or 'not defined'}; only a TRADING one takes orders.")
    if not state.depth.is_empty():
        console.print(
            f"Warning: orders rest in the book of {symbol}. They will trade with the recording's, so the figures will "
            "not match; replay on a symbol whose book is empty.",
            style="yellow",
        )
    return ReplayReport(flow, state.depth, states)


async def _symbol_id(settings: Settings, symbol: str) -> int:
    if symbol.isdecimal():
        return int(symbol)
    ids = {row["symbol"]: row["id"] for row in await read_symbols(settings)}
    if symbol not in ids:
        raise SetupError(f"there is no symbol {symbol}; there are {', '.join(sorted(ids))}, or name one by its id.")
    return int(ids[symbol])


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        times = float(text)
    except ValueError:
        times = 0.0
    if not 0 < times < float("inf"):
        raise typer.BadParameter("a number above 0, or max", param_hint="--speed")
    return times


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _table(summary: Summary, seconds: float) -> Table:
    table = Table(title="Replay", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_column("of", justify="right")
    for what, count, total in _lines(summary):
        table.add_row(what, f"{count:,}", "" if total is None else f"{total:,}")
    table.caption = (
        f"{seconds:.2f} s from the first command to the last answer, {summary.commands / seconds:,.0f} a second"
    )
    table.caption_justify = "left"
    return table


def _lines(s: Summary) -> list[tuple[str, int, int | None]]:
    lines: list[tuple[str, int, int | None]] = [
        ("messages that change no visible book", s.skipped, s.rows),
        ("orders the file only knows from their end", s.orders_unseen, None),
        ("commands answered", s.answered, s.commands),
        *((f"refused: {code}", count, s.commands) for code, count in sorted(s.rejections.items())),
        ("events", s.events, None),
        ("trades", s.trades, None),
        ("visible executions at the file's price", s.at_file_price, s.executions),
        ("... with the file's maker at the head of the queue", s.at_head, s.executions),
        ("... after others were sent to the back of it", s.passed_over, s.executions),
        ("trades that the file does not have", s.trades_elsewhere, None),
        ("moments with a crossed book", s.crossed, s.commands),
        ("price levels at the end as in the file", s.final_levels_equal, s.final_levels),
    ]
    if s.states:
        lines.append(("states equal to the order book file", s.states_equal, s.states))
        lines.append(("levels taken from it as they came into view", s.state_levels_taken, s.state_levels))
    return lines
