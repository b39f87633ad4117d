"""What must not be served: passwords that everybody knows, and passwords in plain text across a network."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import closing
from ipaddress import ip_address

import bcrypt
import psycopg2

from forkast_streams.config import Settings
from forkast_streams.errors import SetupError
from forkast_streams.storage.addresses import server_options

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 3_000
# What init.sql knows as demo users; each had its e-mail as password when it was made.
DEMO_EMAILS = tuple(
    f"{name}@example.com"
    for name in ("alice", "bob", "carol", "david", "eve", "frank", "grace", "hank", "irene", "jack")
)


def require_safe_transport(settings: Settings) -> None:
    """Let passwords cross a network only with TLS.

    Raises:
        SetupError: others can reach the web server, and no proxy is said to end TLS before it.
    """
    if settings.behind_tls_proxy or _is_loopback(settings.host):
        return
    raise SetupError(
        f"the web server would take passwords without TLS on {settings.host}; let it listen on 127.0.0.1, or put a "
        "proxy that ends TLS before it, let nobody else reach it, and set FORKAST_BEHIND_TLS_PROXY=1."
    )


async def require_no_demo_users(settings: Settings) -> None:
    """Let nobody serve users whose passwords everybody knows, unless that is wanted.

    A database that is out of reach is not waited for: the OMS refuses such passwords at login, too.

    Raises:
        SetupError: there are such users.
    """
    if settings.demo_users:
        return
    try:
        names = await asyncio.to_thread(_demo_users, settings.database_url)
    except psycopg2.Error as exc:
        log.warning("whether there are demo users could not be seen: %s", " ".join(str(exc).split()))
        return
    if names:
        raise SetupError(
            f"the database has demo users, whose passwords everybody knows ({', '.join(names)}); change their "
            "passwords or delete them, or set FORKAST_DEMO_USERS=1 for an exchange that nobody else reaches."
        )


def _is_loopback(host: str) -> bool:
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(ip_address(address.partition("%")[0]).is_loopback for address in addresses)


def _demo_users(database_url: str) -> list[str]:
    options = server_options(database_url, {"statement_timeout": str(_STATEMENT_TIMEOUT_MS)})
    connected = psycopg2.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S, options=options)
    with closing(connected) as connection, connection.cursor() as cursor:
        cursor.execute('SELECT email, password FROM "User" WHERE email = ANY(%s) ORDER BY email', (list(DEMO_EMAILS),))
        return [email for email, stored in cursor.fetchall() if _is_password(email, stored)]


def _is_password(password: str, stored: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode(), stored.encode())
    except ValueError:
        return False
