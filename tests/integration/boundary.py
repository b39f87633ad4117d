"""What tests of the HTTP boundary need: requests as bytes, requests at once, and servers that hang."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from forkast_streams.devstack import Stack
from tests.integration.exchange import Worker
from tests.integration.test_oms import call

HANG_S_MAX = 10.0


def raw(oms: Worker, *parts: bytes, timeout_s: float = 20.0) -> bytes:
    """Send bytes on a connection of their own; return all that comes until the server closes it."""
    with socket.create_connection(("127.0.0.1", oms.port), timeout=timeout_s) as connection:
        for part in parts:
            connection.sendall(part)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    answer = b""
    try:
        while chunk := connection.recv(65_536):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


def parsed(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """Status, headers and decoded JSON body of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split(" ")[1]), headers, json.loads(body[: int(headers["Content-Length"])])


def timed(oms: Worker, method: str, path: str, body: bytes | None = None, **options: Any) -> tuple[int, Any, float]:
    """Send a request; return status, body and seconds."""
    start = time.monotonic()
    status, answer, _ = call(oms, method, path, body, **options)
    return status, answer, time.monotonic() - start


def at_once(count: int, oms: Worker, method: str, path: str, **options: Any) -> list[tuple[int, Any, float]]:
    """Send so many equal requests at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: timed(oms, method, path, **options), range(count)))


@contextmanager
def hanging(stack: Stack, name: str) -> Iterator[None]:
    """Stop a server of ours without ending it: its connections stay, and nothing answers."""
    process = stack.server(name).process()
    assert process is not None
    family = [process, *process.children(recursive=True)]
    for member in family:
        _signal(member, signal.SIGSTOP)
    try:
        yield
    finally:
        for member in family:
            _signal(member, signal.SIGCONT)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
