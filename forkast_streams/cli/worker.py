"""``forkast worker``: one worker of a role, in the foreground."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from faust.cli.faust import cli as faust_cli

from forkast_streams.config import Settings
from forkast_streams.roles import ROLES, create_app, prepare_worker


class RoleName(StrEnum):
    """The names of the roles."""

    engine = "engine"
    oms = "oms"
    keeper = "keeper"
    sink = "sink"


def worker(
    role: Annotated[RoleName, typer.Argument(help="What this worker does.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for local state, one a worker. Default: data/ROLE-INSTANCE."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of its web server. Default: the role's.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of its web server (FORKAST_HOST).")] = None,
    instance: Annotated[str | None, typer.Option(help="Name within the role, unique (FORKAST_INSTANCE).")] = None,
    log_level: Annotated[str, typer.Option(help="Faust's log level.")] = "info",
) -> None:
    """Run one worker of a role until it is stopped.

    The servers are found by KAFKA_BROKERS, REDIS_URL and DATABASE_URL.

    Example:
        forkast worker engine --data-dir ./data/engine-2 --port 3010 --instance 2
    """
    settings = Settings.from_env()
    settings = replace(settings, host=host or settings.host, instance=instance or settings.instance)
    settings = prepare_worker(role, settings, folder=data_dir)
    # `faust worker` takes its own view of the web server from its flags, not from the app's settings.
    faust_args = ["--datadir", str(settings.data_dir), "worker", "--loglevel", log_level]
    faust_args += ["--web-port", str(port or ROLES[role].port), "--web-bind", settings.host]
    app = create_app(role, settings)
    app.finalize()
    faust_cli(args=faust_args, app=app)
