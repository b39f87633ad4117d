"""Where to connect to: the addresses of a database's hosts, one for each attempt.

libpq would try them by itself, but the event loop watches only the socket of its first attempt, and it would look names
up in the middle of everything else.
"""

from __future__ import annotations

import asyncio
import socket

from psycopg2.extensions import parse_dsn

_PORT = "5432"


class ServerAddresses:
    """The addresses of the hosts in ``database_url``; one that works is kept.

    Args:
        database_url: ``postgresql://`` URL, with one host or several.
    """

    def __init__(self, database_url: str) -> None:
        parts = parse_dsn(database_url)
        # A path is a socket of this machine, and who has named addresses needs no look.
        names = [] if "hostaddr" in parts else [host for host in parts.get("host", "").split(",") if host]
        ports = parts.get("port", _PORT).split(",")
        if len(ports) == 1:
            ports *= len(names)
        self._hosts = [(host, port or _PORT) for host, port in zip(names, ports, strict=True) if host[0] not in "/@"]
        self._looking: asyncio.Task[list[dict[str, str]]] | None = None
        self._turn = 0

    async def next(self) -> dict[str, str]:
        """What to connect to, as libpq's parameters; nothing where the URL says all.

        Raises:
            OSError: no host has an address now.
        """
        if not self._hosts:
            return {}
        # Names are looked up in threads, of which there are few: one look at a time, whoever still waits for it.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_up())
        addresses = await asyncio.shield(self._looking)
        return addresses[self._turn % len(addresses)]

    def failed(self) -> None:
        """Take another one the next time."""
        self._turn += 1

    async def _look_up(self) -> list[dict[str, str]]:
        loop = asyncio.get_running_loop()
        addresses: list[dict[str, str]] = []
        failure: OSError | None = None
        for host, port in self._hosts:
            try:
                found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except OSError as exc:
                failure = exc
                continue
            # The host stays for its certificate.
            addresses += [{"host": host, "port": port, "hostaddr": str(address[0])} for *_, address in found]
        if not addresses:
            raise failure or OSError("the database's host has no address")
        return addresses
