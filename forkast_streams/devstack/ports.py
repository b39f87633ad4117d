"""TCP ports of this machine: find free ones, and say who holds a taken one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import time
from collections.abc import Collection
from typing import Any

import psutil

from forkast_streams.errors import SetupError

LOOPBACK = "127.0.0.1"

# Below the range systems hand out to outgoing connections (from 32768 on Linux, 49152 on macOS): a port
# recorded today must still be free at the next start.
AUTO_PORTS = range(20_000, 32_000)


class PortTaken(SetupError):
    """A wanted port is in use.

    Attributes:
        port: the TCP port.
        holder: the process that listens on it, such as ``java (pid 4711)``, if the system tells.
    """

    def __init__(self, port: int, purpose: str, holder: str | None) -> None:
        self.port = port
        self.holder = holder
        by = f"by {holder}" if holder else "by another process"
        super().__init__(f"port {port} for {purpose} is taken {by}: stop it, or use `--ports auto`")


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could listen on ``port`` of all addresses of ``host`` now.

    Raises:
        SetupError: no server can listen there, whatever the port.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        here = [(family, address) for family, *_, address in found if _is_here(family)]
        if not here:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return all(_can_listen(family, address) for family, address in here)
    except OSError as error:
        raise SetupError(
            f"no server can listen on {host} ({error.strerror}): name an address of this machine"
        ) from error


def _is_here(family: int) -> bool:
    """Whether this machine has the family; servers pass over addresses of one that it does not have."""
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return False
        raise
    return True


def _can_listen(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of a server that just stopped linger on its port and do no harm.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def becomes_free(port: int, within_s: float) -> bool:
    """Wait for ``port`` to be free; a killed process holds its sockets until its last thread is gone."""
    deadline = time.monotonic() + within_s
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


def free_ports(count: int, avoid: Collection[int] = (), host: str = LOOPBACK) -> list[int]:
    """Return ``count`` distinct free ports of ``host``, none of them in ``avoid``."""
    found: list[int] = []
    for port in secrets.SystemRandom().sample(AUTO_PORTS, len(AUTO_PORTS)):
        if len(found) == count:
            break
        if port not in avoid and is_free(port, host):
            found.append(port)
    if len(found) < count:
        raise SetupError(f"no {count} free ports in {AUTO_PORTS.start}-{AUTO_PORTS.stop - 1}: stop some servers")
    return found


def require_free(port: int, purpose: str, host: str = LOOPBACK) -> None:
    """Raise `PortTaken` unless a server could listen on ``port`` of ``host``."""
    if not is_free(port, host):
        raise PortTaken(port, purpose, _holder(port))


def _holder(port: int) -> str | None:
    """Name the process that listens on ``port``; other users' processes may stay unknown."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None
