"""Where the commands of operators find Kafka, Redis and Postgres."""

from __future__ import annotations

import os

import typer

from forkast_streams.config import Settings
from forkast_streams.devstack import Stack

_VARIABLES = ("KAFKA_BROKERS", "REDIS_URL", "DATABASE_URL")


def settings_of_exchange() -> Settings:
    """The settings of the environment; where that names no server, those of the stack that runs in the data folder."""
    settings = Settings.from_env()
    if any(name in os.environ for name in _VARIABLES):
        return settings
    stack = Stack(settings.data_dir)
    if not any(server.pid for server in stack.status()):
        return settings
    typer.echo(f"Using the servers of {stack.data_dir}; set {', '.join(_VARIABLES)} for others.", err=True)
    return Settings.from_env(os.environ | stack.env())
