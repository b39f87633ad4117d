"""Where the servers are, as the environment says it: looked at before anything connects, and never shown.

The addresses of Redis and Postgres hold passwords, and what cannot be read may be a part of one.
"""

from __future__ import annotations

from urllib.parse import SplitResult, unquote, urlsplit

import psycopg2
from psycopg2.extensions import parse_dsn

from forkast_streams.errors import SetupError

_REDIS_SCHEMES = ("redis", "rediss", "unix")
_PORTS = range(1, 65_536)


def broker_addresses(text: str) -> list[str]:
    """The addresses in ``KAFKA_BROKERS``.

    Raises:
        SetupError: there is none, or one is not ``host:port``.
    """
    addresses = [broker.strip() for broker in text.split(",") if broker.strip()]
    if not addresses or not all(_is_host(_split(f"//{address}"), address) for address in addresses):
        raise SetupError("KAFKA_BROKERS must name the brokers, host:port each, with commas between them.")
    return addresses


def redis_url(text: str) -> str:
    """``REDIS_URL`` as it is.

    Raises:
        SetupError: it is no URL of a Redis.
    """
    parts = _split(text)
    if parts is None or parts.scheme not in _REDIS_SCHEMES:
        raise SetupError(
            "REDIS_URL must be redis://user:password@host:port/0, or rediss:// with TLS; write special characters of a "
            "password as %XX."
        )
    return text


def database_url(text: str) -> str:
    """``DATABASE_URL``, without the ``schema=public`` of Prisma, which libpq does not know.

    Raises:
        SetupError: it is neither a URL of a Postgres database nor ``host=... dbname=...``, or asks for another schema.
    """
    url = _without_schema(text)
    try:
        parts = parse_dsn(url)
    except psycopg2.Error:
        parts = None
    if parts is None or not _are_ports(parts.get("port", "")):
        raise SetupError(
            "DATABASE_URL must be postgresql://user:password@host:port/database, with parameters of libpq alone; write "
            "special characters of a password as %XX."
        ) from None
    # A service of libpq's may name it.
    if not parts.get("dbname") and not parts.get("service"):
        raise SetupError("DATABASE_URL names no database; add it: postgresql://user:password@host:port/database.")
    return url


def _without_schema(url: str) -> str:
    start, mark, query = url.partition("?")
    parameters = query.split("&")
    schemas = [one for one in parameters if one.startswith("schema=")]
    if any(unquote(one) != "schema=public" for one in schemas):
        raise SetupError(
            "DATABASE_URL has a parameter schema, which only Prisma knows; leave it out, or write "
            "options=-csearch_path%3DSCHEMA instead."
        )
    left = "&".join(one for one in parameters if one not in schemas)
    return start + (mark + left if left else "")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        # Looked at only when it is asked for.
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_host(parts: SplitResult | None, address: str) -> bool:
    return parts is not None and bool(parts.hostname) and parts.netloc == address and "@" not in address


def _are_ports(text: str) -> bool:
    """Whether these are ports, one a host; one that is left out is the usual one."""
    return all(not port or (port.isdecimal() and int(port) in _PORTS) for port in text.split(","))
