"""``forkast stack``: the development servers as commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from forkast_streams.devstack import Stack
from forkast_streams.errors import SetupError

app = typer.Typer(
    name="stack",
    help="Kafka, Postgres and Redis for development, with their data in a folder.",
    no_args_is_help=True,
    add_completion=False,
)


class Ports(StrEnum):
    """How ports are chosen."""

    default = "default"
    auto = "auto"


DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="FORKAST_DATA_DIR", help="Folder of the servers' data, logs and ports."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DEFAULT_DATA_DIR = Path("data")


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    ports: Annotated[
        Ports | None,
        typer.Option(help="Well-known ports (9092, 5432, 6379), or free ones. Not given: as last time, else default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start the servers and leave them running.

    Example:
        forkast stack up --ports auto && eval "$(forkast stack env)"
    """
    with _one_sentence():
        stack = Stack(data_dir, ports.value if ports else None)
        stack.start(detach=True, progress=lambda line: typer.echo(line, err=True))
        if as_json:
            typer.echo(json.dumps(stack.env()))


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the servers; their data stays.

    Example:
        forkast stack down --data-dir ./data
    """
    with _one_sentence():
        Stack(data_dir).stop()


@app.command()
def status(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Show each server; exit with 1 unless all three answer.

    Example:
        forkast stack status --json
    """
    with _one_sentence():
        servers = Stack(data_dir).status()
    if as_json:
        typer.echo(json.dumps([asdict(server) | {"log": str(server.log)} for server in servers]))
    else:
        table = Table("server", "port", "pid", "state", "log")
        for server in servers:
            state = "answers" if server.answers else "does not answer" if server.pid else "stopped"
            table.add_row(server.name, str(server.port), str(server.pid or "-"), state, str(server.log))
        Console().print(table if servers else f"There is no stack in {data_dir}.")
    if not servers or not all(server.answers for server in servers):
        raise typer.Exit(1)


@app.command()
def env(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the servers' addresses as shell exports.

    Example:
        eval "$(forkast stack env)"
    """
    with _one_sentence():
        variables = Stack(data_dir).env()
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@contextmanager
def _one_sentence() -> Iterator[None]:
    """End the program with the error's sentence instead of a trace."""
    try:
        yield
    except SetupError as error:
        typer.echo(f"forkast: {error}", err=True)
        raise typer.Exit(1) from error
