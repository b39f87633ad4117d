"""How to connect: the addresses of a database's hosts, one for each attempt, and the server's settings.

libpq would try them by itself, but the event loop watches only the socket of its first attempt, and it would look names
up in the middle of everything else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from psycopg2.extensions import parse_dsn

from forkast_streams.errors import SetupError

_PORT = "5432"
_LOOK_S_MAX = 1.0


def server_options(database_url: str, options: Mapping[str, str]) -> str:
    """The server's settings for a connection, as libpq's ``options``: those of the URL, and ours, which go before.

    What is handed to libpq beside the URL would replace the URL's.
    """
    of_url = parse_dsn(database_url).get("options", "")
    return " ".join([of_url, *(f"-c {option}={value}" for option, value in options.items())]).strip()


class ServerAddresses:
    """The addresses of the hosts in ``database_url``; one that works is kept. For one attempt at a time.

    Args:
        database_url: ``postgresql://`` URL, with one host or several.

    Raises:
        SetupError: hosts and ports of the URL do not fit together.
    """

    def __init__(self, database_url: str) -> None:
        parts = parse_dsn(database_url)
        # A path is a socket of this machine, and who has named addresses needs no look.
        names = [] if "hostaddr" in parts else parts.get("host", "").split(",")
        if any(not host or host[0] in "/@" for host in names):
            names = []
        ports = parts["port"].split(",") if "port" in parts else [""]
        if len(ports) == 1:
            ports *= len(names)
        if names and len(ports) != len(names):
            raise SetupError(f"DATABASE_URL names {len(names)} hosts and {len(ports)} ports; give each host a port.")
        self._hosts = list(zip(names, ports, strict=False))
        # By host: what is being looked up, and what was found the last time.
        self._looks: dict[str, asyncio.Task[list[Any]]] = {}
        self._known: dict[str, list[str]] = {}
        self._turn = 0

    async def next(self) -> dict[str, str]:
        """What to connect to, as libpq's parameters; nothing where the URL says all.

        Raises:
            OSError: no host has an address now.
        """
        if not self._hosts:
            return {}
        of_hosts = await asyncio.gather(*(self._addresses_of(host) for host, _ in self._hosts))
        found = [
            # The host stays for its certificate.
            {"host": host, "hostaddr": address} | ({"port": port} if port else {})
            for (host, port), addresses in zip(self._hosts, of_hosts, strict=True)
            for address in addresses
        ]
        if not found:
            raise OSError(f"no address is known of {', '.join(host for host, _ in self._hosts)}")
        return found[self._turn % len(found)]

    def failed(self) -> None:
        """Take another one the next time."""
        self._turn += 1

    async def _addresses_of(self, host: str) -> list[str]:
        """The host's addresses; those of the last time while a look fails or takes long."""
        look = self._looks.get(host)
        if look is None:
            # Names are looked up in threads, of which there are few: one look a host, however long it takes.
            loop = asyncio.get_running_loop()
            look = self._looks[host] = loop.create_task(loop.getaddrinfo(host, _PORT, type=socket.SOCK_STREAM))
        await asyncio.wait({look}, timeout=_LOOK_S_MAX)
        if look.done():
            self._looks.pop(host, None)
            if look.exception() is None:
                self._known[host] = [str(address[0]) for *_, address in look.result()]
        return self._known.get(host, [])
