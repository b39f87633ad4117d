"""Where the commands of operators find Kafka, Redis and Postgres."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import typer

from forkast_streams.config import Settings
from forkast_streams.devstack import Stack
from forkast_streams.kafka_security import VARIABLES as KAFKA_SECURITY_VARIABLES

_VARIABLES = ("KAFKA_BROKERS", "REDIS_URL", "DATABASE_URL")


def forget_servers(env: MutableMapping[str, str]) -> None:
    """Take out which servers there are and how to enter them: those of a stack speak plain text on this machine."""
    for name in (*_VARIABLES, *KAFKA_SECURITY_VARIABLES):
        env.pop(name, None)


def settings_of_exchange() -> Settings:
    """The settings of the environment; where that names no server, those of the stack that runs in the data folder."""
    if any(name in os.environ for name in _VARIABLES):
        return Settings.from_env()
    env = dict(os.environ)
    forget_servers(env)
    stack = Stack(Settings.from_env(env).data_dir)
    if not any(server.pid for server in stack.status()):
        return Settings.from_env()
    typer.echo(f"Using the servers of {stack.data_dir}; set {', '.join(_VARIABLES)} for others.", err=True)
    return Settings.from_env(env | stack.env())
