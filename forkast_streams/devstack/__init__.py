"""The development stack: Kafka, Postgres and Redis as managed servers from Python packages."""

from forkast_streams.devstack.ports import PortTaken
from forkast_streams.devstack.server import ServerStatus
from forkast_streams.devstack.stack import Stack

__all__ = ["PortTaken", "ServerStatus", "Stack"]
