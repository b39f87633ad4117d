"""How long it takes from an order that is sent to its fill on the stream, at a steady rate."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import cast

import msgspec
import uvloop

from benchmarks.harness import Goal, Run, benchmark
from benchmarks.http_load import Client, basic, open_loop, percentile, post
from benchmarks.order_entry import UNLIMITED
from benchmarks.results import Plot
from benchmarks.servers import cpu_seconds, servers, worker
from forkast_streams.config import Settings
from forkast_streams.reference_data import publish_symbols
from tests.integration.exchange import Worker, wait_until

_RATES = (500, 2_000)
_SECONDS = 30
_WARM_UP_S = 3
_SYMBOLS = 10
# A price is used again when nothing of its last use can be on the way any more.
_PRICES = 5_000
_CONNECTIONS = 64
_SHARES = (0.5, 0.9, 0.99, 0.999)
_UNSEEN_SHARE_MAX = 0.01
_LAST_FILL_S = 2.0
_MS = "ms"


@dataclass(slots=True)
class _Pair:
    """Two orders that fill each other at a price of their own.

    Attributes:
        due: when the second one was to be sent.
        answered: when it was answered.
        seen: when its fill was on the stream.
    """

    due: float = 0.0
    answered: float = 0.0
    seen: float = 0.0


@dataclass(slots=True)
class _Sample:
    """What one run has measured, in milliseconds."""

    fills: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    unseen: int = 0


class _Stream(asyncio.Protocol):
    """A client of the keeper's stream of one symbol; tells which prices have no quantity left."""

    def __init__(self, symbol_id: int, pairs: dict[tuple[int, float], _Pair]) -> None:
        self._symbol_id = symbol_id
        self._pairs = pairs
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None
        self.opened = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        path = f"/order-book/{self._symbol_id}/stream"
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: keeper\r\nAuthorization: {basic('eve')}\r\n\r\n".encode())

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Look at the changes; each event is a line that begins with ``data:``."""
        now = time.perf_counter()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data: "):
                continue
            self.opened.set()
            update = msgspec.json.decode(line[6:])
            for side in ("buy", "sell"):
                for level in update[side]:
                    if level["quantity"] == "0":
                        pair = self._pairs.get((self._symbol_id, float(level["price"])))
                        if pair is not None and not pair.seen:
                            pair.seen = now


@benchmark(
    "latency",
    "How long after an order is sent is its fill on the stream?",
    [Goal("500 orders/s: fill, 50 %", "<=", 8.0), Goal("500 orders/s: fill, 99 %", "<=", 40.0)],
)
def latency(run: Run) -> None:
    """The whole exchange on one machine; orders over HTTP at a steady rate, fills from the keeper's streams."""
    with servers(run) as plain, ExitStack() as stack:
        at = replace(plain, env=plain.env | UNLIMITED)
        roles = {role: stack.enter_context(worker(at, role)) for role in ("engine", "sink", "keeper", "oms")}
        for one in roles.values():
            one.start()
        asyncio.run(publish_symbols(Settings.from_env(at.env)))
        for role, one in roles.items():
            wait_until(one.is_ready, f"{role} getting ready")
        seconds = max(5, run.scaled(_SECONDS))
        for rate in _RATES:
            with run.step(f"Warming up at {rate:,} orders/s"):
                uvloop.run(_measure(roles, rate, _WARM_UP_S))
            for _ in run.rounds(3):
                with run.step(f"{rate:,} orders/s for {seconds} s"):
                    before = sum(cpu_seconds(one.pid) for one in roles.values())
                    sample = uvloop.run(_measure(roles, rate, seconds))
                    cpu = sum(cpu_seconds(one.pid) for one in roles.values()) - before
                _record(run, rate, seconds, sample, cpu)
    shares = [f"{share * 100:g} %" for share in _SHARES]
    fills = {f"{rate:,} orders/s": [run.median(_name(rate, "fill", share)) for share in _SHARES] for rate in _RATES}
    run.plot(Plot("fills", "From the order sent to its fill on the stream", "bars", shares, fills, "", _MS, mark=40.0))
    run.note(
        f"Engine, sink, keeper, OMS, their servers and the clients share one machine; {_CONNECTIONS} connections. A "
        "time is from the moment at which an order was due to be sent, whether the client could send it then or not."
    )
    run.note("Each second order fills the one before it at a price of its own, whose level goes from the stream then.")


def _name(rate: int, what: str, share: float) -> str:
    return f"{rate:,} orders/s: {what}, {share * 100:g} %"


def _record(run: Run, rate: int, seconds: int, sample: _Sample, cpu: float) -> None:
    assert sample.unseen <= _UNSEEN_SHARE_MAX * len(sample.fills), f"{sample.unseen} fills were not seen"
    for share in _SHARES:
        run.record(_name(rate, "fill", share), percentile(sample.fills, share), _MS)
    for share in (0.5, 0.99):
        run.record(_name(rate, "answer", share), percentile(sample.answers, share), _MS)
    run.record(f"{rate:,} orders/s: CPU of the four workers", cpu / seconds, "cores")


async def _open_streams(port: int, pairs: dict[tuple[int, float], _Pair]) -> list[_Stream]:
    streams = [_Stream(symbol_id, pairs) for symbol_id in range(1, _SYMBOLS + 1)]
    for stream in streams:
        await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", port)  # noqa: B023 - at once
        await stream.opened.wait()
    return streams


async def _measure(roles: dict[str, Worker], rate: int, seconds: int) -> _Sample:
    """Send orders for a while; times of the pairs that filled each other."""
    pairs: dict[tuple[int, float], _Pair] = {}
    streams = await _open_streams(roles["keeper"].port, pairs)
    async with Client(roles["oms"].port, _CONNECTIONS) as client:
        await client.drain()

        def act(number: int, due: float) -> None:
            symbol_id, price = _place_of(number // 2)
            body: dict[str, object] = {"symbolId": symbol_id, "type": "LIMIT", "quantity": 1, "price": price}
            if number % 2 == 0:
                pairs[symbol_id, price] = _Pair()
                client.send(post("/orders", json.dumps(body | {"side": "SELL"}).encode(), 0), _taken)
                return
            pair, body = pairs[symbol_id, price], body | {"side": "BUY", "timeInForce": "IOC"}
            pair.due = due

            def answered(status: int, answer: bytes) -> None:
                _taken(status, answer)
                pair.answered = time.perf_counter()

            client.send(post("/orders", json.dumps(body).encode(), 1), answered)

        await open_loop(rate, rate * seconds // 2 * 2, act)
        await client.drain()
    # Fills that are not on the stream by now are counted as such.
    await asyncio.sleep(_LAST_FILL_S)
    for stream in streams:
        stream.close()
    sample = _Sample()
    for pair in pairs.values():
        # Seen before it was sent, somebody else has filled the first order: two pairs came the wrong way round.
        if pair.seen <= pair.due:
            sample.unseen += 1
            continue
        sample.fills.append((pair.seen - pair.due) * 1e3)
        sample.answers.append((pair.answered - pair.due) * 1e3)
    return sample


def _place_of(pair: int) -> tuple[int, float]:
    """The symbol and the price of a pair: falling, so that a first order that was left alone is in nobody's way."""
    return pair % _SYMBOLS + 1, round(100 - pair // _SYMBOLS % _PRICES / 100, 2)


def _taken(status: int, _: bytes) -> None:
    assert status == 201, f"an order was answered with {status}"
