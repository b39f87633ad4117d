"""Clients of the keeper's streams: one that follows and checks every change, and one that does not read."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.chaos.exchange import Exchange
from tests.chaos.traders import call, client


class StreamClient:
    """Follows a symbol's stream over every break, and checks that changes continue what it holds.

    Attributes:
        breaks: how often the connection was lost.
        violations: a sentence for each change that does not continue the one before.
    """

    def __init__(self, exchange: Exchange, symbol_id: int) -> None:
        self.symbol_id = symbol_id
        self.sequence = -1
        self.levels: dict[str, dict[str, str]] = {"buy": {}, "sell": {}}
        self.breaks = 0
        self.violations: list[str] = []
        self._exchange = exchange
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=30, sock_connect=5)
        async with client("grace") as session:
            while True:
                url = f"{self._exchange.member('keeper').url}/order-book/{self.symbol_id}/stream"
                try:
                    async with session.get(url, timeout=timeout) as response:
                        if response.status == 200:
                            await self._follow(response)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                self.breaks += 1
                await asyncio.sleep(0.2)

    async def _follow(self, response: aiohttp.ClientResponse) -> None:
        async for line in response.content:
            if line.startswith(b"data:"):
                self._apply(json.loads(line[5:]))

    def _apply(self, update: dict[str, Any]) -> None:
        if update["type"] == "snapshot":
            self.levels = {"buy": {}, "sell": {}}
        elif update["previousSnapShotId"] != self.sequence:
            self.violations.append(
                f"I-13: symbol {self.symbol_id}: a change continues {update['previousSnapShotId']}, "
                f"the client is at {self.sequence}"
            )
        self.sequence = int(update["orderBookSnapShotId"])
        for side, levels in self.levels.items():
            for level in update[side]:
                if float(level["quantity"]) == 0:
                    levels.pop(level["price"], None)
                else:
                    levels[level["price"]] = level["quantity"]

    async def differs(self) -> str | None:
        """Compare with the book as the keeper gives it whole, once the stream is as far; None when they agree."""
        async with client("grace") as session:
            url = f"{self._exchange.member('keeper').url}/order-book/{self.symbol_id}?depth=1000"
            for _ in range(100):
                status, book = await call(session, "GET", url, None)
                if status == 200 and book["orderBookSnapShotId"] == self.sequence:
                    whole = {side: {level["price"]: level["quantity"] for level in book[side]} for side in self.levels}
                    held = {side: dict(levels) for side, levels in self.levels.items()}
                    return None if whole == held else f"I-13: symbol {self.symbol_id}: stream {held}, book {whole}"
                await asyncio.sleep(0.1)
        return f"I-13: symbol {self.symbol_id}: the stream is at {self.sequence}, the book at {book}"


def connect_without_reading(url: str, symbol_id: int) -> socket.socket:
    """Ask for a stream and never read it."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect((parts.hostname, parts.port))
    credentials = base64.b64encode(b"grace@example.com:grace@example.com").decode()
    connection.sendall(
        f"GET /order-book/{symbol_id}/stream HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Basic {credentials}\r\n\r\n".encode()
    )
    return connection
