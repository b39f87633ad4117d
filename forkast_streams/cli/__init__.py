"""The ``forkast`` command."""

from __future__ import annotations

import logging
import sys

import typer

from forkast_streams.cli import audit, bench, book, init, keys, orders, replay, stack, symbols, up, worker
from forkast_streams.errors import ForkastError

app = typer.Typer(
    name="forkast",
    help="An open exchange on Kafka, Postgres and Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(init.init)
app.command()(worker.worker)
app.command()(book.book)
app.command()(audit.audit)
app.command()(bench.bench)
app.add_typer(orders.app, name="order")
app.add_typer(keys.app, name="keys")
app.add_typer(replay.app, name="replay")
app.add_typer(stack.app, name="stack")
app.add_typer(symbols.app, name="symbols")


def main() -> None:
    """Run the command line; an error made on purpose is one sentence and exit status 1."""
    # What a Kafka client says while a broker starts is for its developers; errors reach the user as sentences.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        app()
    except ForkastError as exc:
        typer.echo(str(exc), err=True)
        sys.exit(1)
