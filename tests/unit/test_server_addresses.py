"""A database's hosts are tried one after the other, with all of their addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from forkast_streams.storage.addresses import ServerAddresses

_KNOWN = {"one": ["10.0.0.1"], "two": ["10.0.0.2", "10.0.0.3"]}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are looked up, by which only two are found."""
    looks: list[str] = []

    async def getaddrinfo(_self: object, host: str, port: int, **_: Any) -> list[Any]:
        looks.append(host)
        await asyncio.sleep(0)
        if host not in _KNOWN:
            raise socket.gaierror(f"no {host}")
        return [(0, 0, 0, "", (address, port)) for address in _KNOWN[host]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return looks


@pytest.mark.usefixtures("looks")
async def test_each_address_has_its_turn_until_one_works() -> None:
    """Those of all hosts in their order, each with its host's name and port; then the first one again."""
    addresses = ServerAddresses("postgresql://u:p@one:5001,away,two:5003/db")
    found = []
    for _ in range(4):
        found.append(await addresses.next())
        assert await addresses.next() == found[-1]
        addresses.failed()
    assert [(one["host"], one["port"], one["hostaddr"]) for one in found] == [
        ("one", "5001", "10.0.0.1"),
        ("two", "5003", "10.0.0.2"),
        ("two", "5003", "10.0.0.3"),
        ("one", "5001", "10.0.0.1"),
    ]


async def test_one_look_for_all_who_wait(looks: list[str]) -> None:
    """A service of names that hangs does not get a thread from each of them."""
    addresses = ServerAddresses("postgresql://one/db")
    found = await asyncio.gather(*(addresses.next() for _ in range(100)))
    assert found == [{"host": "one", "port": "5432", "hostaddr": "10.0.0.1"}] * 100
    assert looks == ["one"]


@pytest.mark.usefixtures("looks")
async def test_no_address_is_said() -> None:
    """As an error of which trying again may help."""
    with pytest.raises(OSError, match="no away"):
        await ServerAddresses("postgresql://away/db").next()


@pytest.mark.parametrize(
    "url",
    ["postgresql:///db", "postgresql:///db?host=/run/postgresql", "postgresql://one/db?hostaddr=10.9.9.9"],
)
async def test_what_needs_no_look(url: str, looks: list[str]) -> None:
    """A socket of this machine, or an address that is named already."""
    assert await ServerAddresses(url).next() == {}
    assert looks == []
