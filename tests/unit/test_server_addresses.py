"""A database's hosts are tried one after the other, with all of their addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from forkast_streams.errors import SetupError
from forkast_streams.storage import addresses as addresses_module
from forkast_streams.storage.addresses import ServerAddresses

_KNOWN = {"one": ["10.0.0.1"], "two": ["10.0.0.2", "10.0.0.3"]}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are looked up, by which only two are found; what begins with "slow" takes for ever."""
    looks: list[str] = []

    async def getaddrinfo(_self: object, host: str, _port: object, **_: Any) -> list[Any]:
        looks.append(host)
        await asyncio.sleep(0)
        if host.startswith("slow"):
            await asyncio.get_running_loop().create_future()
        if host not in _KNOWN:
            raise socket.gaierror(f"no {host}")
        return [(0, 0, 0, "", (address, 0)) for address in _KNOWN[host]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(addresses_module, "_LOOK_S_MAX", 0.05)
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


async def test_a_name_that_hangs_holds_up_no_other(looks: list[str]) -> None:
    """And is looked up once, however often an address is asked for: it keeps a thread."""
    addresses = ServerAddresses("postgresql://slow,one/db")
    for _ in range(3):
        assert await addresses.next() == {"host": "one", "hostaddr": "10.0.0.1"}
    assert looks.count("slow") == 1


async def test_an_address_is_known_while_names_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database is reached though the service of names is away."""
    monkeypatch.setattr(addresses_module, "_LOOK_S_MAX", 5.0)
    addresses = ServerAddresses("postgresql://localhost/db")
    found = await addresses.next()

    async def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror("no names today")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    assert await addresses.next() == found


@pytest.mark.usefixtures("looks")
async def test_no_address_is_said() -> None:
    """As an error of which trying again may help."""
    with pytest.raises(OSError, match="no address is known of away, gone"):
        await ServerAddresses("postgresql://away,gone/db").next()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///db",
        "postgresql:///db?host=/run/postgresql",
        "postgresql:///db?host=/run/postgresql,one",
        "postgresql://one/db?hostaddr=10.9.9.9",
        "postgresql:///db?hostaddr=10.9.9.9,10.9.9.8&port=1,2",
        "postgresql:///db?port=1,2",
    ],
)
async def test_what_needs_no_look(url: str, looks: list[str]) -> None:
    """A socket of this machine, or an address that is named already."""
    assert await ServerAddresses(url).next() == {}
    assert looks == []


def test_hosts_without_their_ports_are_refused() -> None:
    """With what to do."""
    with pytest.raises(SetupError, match="give each host a port"):
        ServerAddresses("postgresql:///db?host=a,b,c&port=1,2")
