"""``forkast up``: the servers and the four roles under one supervisor, in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from forkast_streams.cli.init import prepare
from forkast_streams.cli.servers import forget_servers
from forkast_streams.cli.stack import Ports
from forkast_streams.compiled import require_fresh
from forkast_streams.config import Settings
from forkast_streams.devstack import Stack
from forkast_streams.start_checks import require_no_demo_users, require_safe_transport
from forkast_streams.supervisor import (
    RoleProcess,
    Supervisor,
    choose_ports,
    record_ports,
    signing_secret,
    unwind_on_ending_signals,
)
from forkast_streams.topics import PARTITIONS_DEFAULT

console = Console(stderr=True)


def up(
    data_dir: Annotated[Path, typer.Option(help="Folder of all data and logs.", envvar="FORKAST_DATA_DIR")] = Path(
        "data"
    ),
    ports: Annotated[
        Ports | None,
        typer.Option(help="Well-known ports, or free ones. Not given: as last time, else default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address the web servers listen on.", envvar="FORKAST_HOST")] = "127.0.0.1",
    demo_users: Annotated[bool, typer.Option(help="Create the ten demo users.")] = True,
) -> None:
    """Start Kafka, Postgres, Redis and the exchange; Ctrl-C stops them all.

    Example:
        forkast up --data-dir ./data --ports auto
    """
    # Each worker would refuse, again and again, and say so in its log alone.
    require_fresh()
    # Until the supervisor handles them.
    ending = unwind_on_ending_signals()
    forget_servers(os.environ)
    require_safe_transport(Settings.from_env(os.environ | {"FORKAST_HOST": host}))
    role_ports = choose_ports(data_dir, host, auto=None if ports is None else ports is Ports.auto)
    stack = Stack(data_dir, ports.value if ports else None)
    try:
        stack.start(progress=_say)
        record_ports(data_dir, role_ports)
        env = {"FORKAST_SIGNING_SECRET": signing_secret(data_dir)} | os.environ | stack.env()
        env |= {"FORKAST_DATA_DIR": str(data_dir), "FORKAST_HOST": host}
        settings = Settings.from_env(env | ({"FORKAST_DEMO_USERS": "1"} if demo_users else {}))
        for sentence in asyncio.run(prepare(settings, partitions=PARTITIONS_DEFAULT, demo_users=demo_users)):
            _say(sentence)
        asyncio.run(require_no_demo_users(settings))
        processes = [RoleProcess(role, port, settings) for role, port in role_ports.items()]
        supervisor = Supervisor(processes, report=_say)
        asyncio.run(supervisor.run(lambda: _print_where(processes, stack, data_dir, demo_users=demo_users)))
    except KeyboardInterrupt:
        _say("Interrupted while starting.")
    finally:
        # A terminal that closes says so twice, and the shell too; only an impatient Ctrl-C cuts this short.
        for number in ending:
            signal.signal(number, signal.SIG_IGN)
        # A start that is refused or cut short has stopped what it had started; what runs then is used by others.
        if stack.is_managed:
            stack.stop()
            _say("Everything is stopped; the data stays.")


def _say(sentence: str) -> None:
    # The terminal may have closed.
    with suppress(OSError):
        console.print(sentence, highlight=False)


def _print_where(processes: list[RoleProcess], stack: Stack, data_dir: Path, *, demo_users: bool) -> None:
    table = Table(title="forkast-streams is ready", title_justify="left")
    table.add_column("what")
    table.add_column("where", overflow="fold")
    for process in processes:
        table.add_row(process.role, process.url)
    for name, value in stack.env().items():
        table.add_row(name, value)
    table.add_row("data and logs", str(data_dir.resolve()))
    console.print(table)
    if demo_users:
        oms = next(process.url for process in processes if process.role == "oms")
        console.print(f"Try: forkast order place AAPL buy 10 --price 101.25 --url {oms}", highlight=False)
    console.print("Ctrl-C stops everything; the data stays.", highlight=False)
