"""The ``forkast`` command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from forkast_streams.errors import ForkastError, Unavailable

# Names of commands and the modules that have them.
_MODULES = {
    "up": "up",
    "init": "init",
    "worker": "worker",
    "book": "book",
    "audit": "audit",
    "bench": "bench",
    "order": "orders",
    "keys": "keys",
    "replay": "replay",
    "stack": "stack",
    "symbols": "symbols",
}


class _Commands(Mapping[str, Any]):
    """Commands by name, imported when one is looked up: all of them would be a third of a worker's start."""

    def __getitem__(self, name: str) -> Any:
        module = import_module(f"forkast_streams.cli.{_MODULES[name]}")
        commands = getattr(module, "app", None)
        if commands is None:
            commands = typer.Typer(add_completion=False)
            commands.command(name)(getattr(module, name))
        command = get_command(commands)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]


app = typer.Typer(
    name="forkast",
    cls=_Group,
    help="An open exchange on Kafka, Postgres and Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


# What makes typer take this for a group, though it has no command of its own.
@app.callback()
def _forkast() -> None: ...


def main() -> None:
    """Run the command line; an error made on purpose is one sentence and exit status 1."""
    # What a Kafka client says while a broker starts is for its developers; errors reach the user as sentences.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        app()
    except ForkastError as exc:
        typer.echo(_sentence(exc), err=True)
        sys.exit(1)


def _sentence(exc: ForkastError) -> str:
    """The error, and for a server that is out of reach also why, which clients of the web are not told."""
    if isinstance(exc, Unavailable) and exc.__cause__ is not None:
        return f"{exc} ({str(exc.__cause__).strip()})"
    return str(exc)
