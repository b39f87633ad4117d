"""Ports: free ones are distinct and free, a taken one is named with its holder."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from forkast_streams.devstack import ports
from forkast_streams.errors import SetupError


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server of ours."""
    with socket.create_server((ports.LOOPBACK, 0)) as listener:
        yield listener


def test_free_ports_are_distinct_and_free() -> None:
    """They lie below the range that systems use for outgoing connections."""
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert all(port in ports.AUTO_PORTS and ports.is_free(port) for port in found)


def test_ports_to_avoid_are_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a range of ten, nine are to be avoided."""
    monkeypatch.setattr(ports, "AUTO_PORTS", range(20_000, 20_010))
    monkeypatch.setattr(ports, "is_free", lambda _port, _host: True)
    assert ports.free_ports(1, avoid=range(20_001, 20_010)) == [20_000]


def test_a_taken_port_names_its_holder_and_the_remedy(listener: socket.socket) -> None:
    """The sentence has the port, what it was wanted for, the process and what to do."""
    port = listener.getsockname()[1]
    with pytest.raises(ports.PortTaken) as raised:
        ports.require_free(port, "Kafka")
    assert raised.value.port == port
    assert f"port {port} for Kafka is taken by" in str(raised.value)
    assert f"(pid {os.getpid()})" in str(raised.value)
    assert "--ports auto" in str(raised.value)


def test_a_port_becomes_free(listener: socket.socket) -> None:
    """The wait ends when its holder closes it, or after a while."""
    port = listener.getsockname()[1]
    assert not ports.becomes_free(port, 0.05)
    listener.close()
    assert ports.becomes_free(port, 10)


def test_a_listener_on_all_interfaces_takes_the_port() -> None:
    """A server on 0.0.0.0 would get the loopback connections too."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        assert not ports.is_free(listener.getsockname()[1])


def test_a_port_with_lingering_connections_is_free(listener: socket.socket) -> None:
    """A server that just stopped leaves connections in TIME_WAIT, which do not stop the next."""
    address = listener.getsockname()
    with socket.create_connection(address) as client:
        accepted, _ = listener.accept()
        accepted.close()
        assert client.recv(1) == b""
    listener.close()
    assert ports.is_free(address[1])


def test_a_port_is_looked_at_where_the_server_is_to_listen() -> None:
    """The families' addresses have ports of their own."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6")
    with listener:
        port = listener.getsockname()[1]
        assert not ports.is_free(port, "::1")
        assert not ports.is_free(port, "::")
        assert ports.is_free(port)
        with pytest.raises(ports.PortTaken):
            ports.require_free(port, "engine", "::1")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    """With a sentence, and not for its port."""
    with pytest.raises(SetupError, match=f"no server can listen on {host}.*name an address of this machine"):
        ports.is_free(1234, host)


def test_addresses_of_a_family_that_is_switched_off_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6 may name ::1 as localhost all the same."""
    make = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *arguments: int, **options: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *arguments, **options)

    addresses = [(socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(ports.socket, "getaddrinfo", lambda *_, **__: addresses)
    monkeypatch.setattr(ports.socket, "socket", without_ipv6)
    assert ports.is_free(0, "localhost")
