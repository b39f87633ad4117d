"""HTTP clients that cost little: requests made beforehand, over connections that stay open."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

# Called with the status and the body of an answer.
Answered = Callable[[int, bytes], None]

_EMAILS = ("alice", "bob", "carol", "david", "eve", "frank", "grace")
_LENGTH = b"content-length: "


def basic(name: str) -> str:
    """The ``Authorization`` header of a demo user."""
    email = f"{name}@example.com"
    return "Basic " + base64.b64encode(f"{email}:{email}".encode()).decode()


def post(path: str, body: bytes, number: int = 0) -> bytes:
    """A request of one of the demo users, by turns."""
    name = _EMAILS[number % len(_EMAILS)]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: exchange\r\nAuthorization: {basic(name)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """A connection with at most one request under way; others sent meanwhile wait for its answer."""

    def __init__(self, idle: Callable[[Connection], None], answered: Answered) -> None:
        self._idle = idle
        self._answered = answered
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._then: Answered | None = None
        self.lost: BaseException | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for requests."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has gone: the run is over."""
        self.lost = exc or ConnectionError("the server closed the connection")

    def send(self, request: bytes, then: Answered | None = None) -> None:
        """Send a request; its answer goes to ``then``, or to whom the connection was made with."""
        assert self._transport is not None, "connected"
        self._then = then
        self._transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        buffer = self._buffer = self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = buffer[:end].lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        line_end = head.find(b"\r\n", at)
        size = int(head[at : line_end if line_end > 0 else None])
        if len(buffer) < end + 4 + size:
            return
        self._buffer = b""
        then, self._then = self._then, None
        (then or self._answered)(int(buffer[9:12]), buffer[end + 4 :])
        self._idle(self)


class Client:
    """Some connections to one server.

    Attributes:
        statuses: number of answers by status.
    """

    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._count = connections
        self._connections: list[Connection] = []
        self._free: deque[Connection] = deque()
        self._waiting: deque[tuple[bytes, Answered | None]] = deque()
        self.statuses: Counter[int] = Counter()

    async def __aenter__(self) -> Client:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, one = await loop.create_connection(lambda: Connection(self._idle, self._answer), "127.0.0.1", self._port)
            self._connections.append(one)
            self._free.append(one)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        for one in self._connections:
            one.close()

    @property
    def waiting(self) -> int:
        """Requests that no connection was free for."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Requests without an answer."""
        return len(self._connections) - len(self._free) + len(self._waiting)

    def send(self, request: bytes, then: Answered | None = None) -> None:
        """Send a request as soon as a connection is free."""
        if self._free:
            self._free.popleft().send(request, then)
        else:
            self._waiting.append((request, then))

    def check(self) -> None:
        """Fail when a connection was lost."""
        lost = next((one.lost for one in self._connections if one.lost is not None), None)
        if lost is not None:
            raise RuntimeError("a connection was lost in the middle of a measurement") from lost

    async def drain(self, within_s: float = 60.0) -> None:
        """Wait for all answers."""
        deadline = time.monotonic() + within_s
        while self.under_way:
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.under_way} requests have no answer after {within_s:g} s")
            await asyncio.sleep(0.01)

    async def send_all(self, requests: Iterable[bytes], answered: Answered) -> float:
        """Keep every connection busy until ``requests`` are answered; return the seconds it took."""
        rest: Iterator[bytes] = iter(requests)

        def then(status: int, body: bytes) -> None:
            self.statuses[status] += 1
            answered(status, body)
            following = next(rest, None)
            if following is not None:
                # Its turn comes when the connection is free, in a moment.
                self._waiting.append((following, then))

        started = time.perf_counter()
        for _ in self._connections:
            first = next(rest, None)
            if first is not None:
                self.send(first, then)
        await self.drain(within_s=600.0)
        return time.perf_counter() - started

    def _idle(self, one: Connection) -> None:
        if self._waiting:
            one.send(*self._waiting.popleft())
        else:
            self._free.append(one)

    def _answer(self, status: int, _: bytes) -> None:
        self.statuses[status] += 1


async def open_loop(rate: float, count: int, act: Callable[[int, float], None]) -> None:
    """Call ``act(number, due)`` at its time however late the answers are; ``due`` is on the clock of `perf_counter`.

    A loop that has fallen behind catches up at once: what is measured from ``due`` has no coordinated omission.
    """
    started, number = time.perf_counter() + 0.05, 0
    while number < count:
        now = time.perf_counter()
        while number < count and (due := started + number / rate) <= now:
            act(number, due)
            number += 1
        await asyncio.sleep(max(0.0, min(0.001, started + number / rate - time.perf_counter())))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
