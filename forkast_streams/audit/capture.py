"""Takes a consistent cut of a running exchange.

The order is the point: the ends of the inputs first, then wait until the exchange has answered them; then tables and
books, which show events that are in the log already; then the ends of events and dead letters; then those of the
inputs again, so that no event is read whose input is not.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
from msgspec import Struct

from forkast_streams.audit.evidence import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW, BookAnswer, Cut, Row
from forkast_streams.audit.kafka_log import KafkaLog
from forkast_streams.audit.records import Record
from forkast_streams.audit.tables import TablesSnapshot
from forkast_streams.errors import SetupError

ENGINE_GROUP = "forkast-engine"
SINK_GROUP = "forkast-sink"

# Moments at which books are looked at before the last one, how many symbols at each, and the pause between them.
BOOK_MOMENTS = 20
_BOOKS_A_MOMENT = 20
_PAUSE_S_MAX = 0.1
_POLL_S = 0.2
_DEPTH = 5_000
_HTTP_TIMEOUT_S = 15
_COME_AGAIN = 503
_NO_BOOK = 404


class Exchange(Struct, frozen=True):
    """Where a running exchange is.

    Attributes:
        brokers: Kafka.
        database_url: Postgres; None leaves the tables out.
        keeper_url: the book API; None leaves the books out.
        user, password: who asks the book API.
        settle_s: seconds to wait for what has not caught up.
        producer_keys: the engines' key file, by which they judge who may write; None where they have none.
    """

    brokers: list[str]
    database_url: str | None
    keeper_url: str | None
    user: str = ""
    password: str = ""
    settle_s: float = 30.0
    producer_keys: Path | None = None


class LiveEvidence:
    """A running exchange as evidence.

    Attributes:
        tables: the tables at the moment of the cut.
    """

    def __init__(self, log: KafkaLog, cut: Cut, tables: TablesSnapshot | None) -> None:
        self.cut = cut
        self.tables = tables
        self._log = log

    def records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        """The records from ``start`` to before ``end``."""
        return self._log.records(topic, partition, start, end)

    def rows(self, table: str, symbol_id: int) -> Iterator[Row]:
        """The rows of a symbol."""
        assert self.tables is not None, "rows are asked for only when the tables were compared"
        return self.tables.rows(table, symbol_id)

    def close(self) -> None:
        """Close the connections."""
        self._log.close()
        if self.tables is not None:
            self.tables.close()


def capture(exchange: Exchange, say: Callable[[str], None] = lambda _: None) -> LiveEvidence:
    """Take a cut; ``say`` is told what is being waited for.

    Raises:
        SetupError: a server is out of reach, or the log does not begin at its beginning.
    """
    log = KafkaLog(exchange.brokers)
    tables = None
    try:
        late: list[str] = []
        deadline = time.monotonic() + exchange.settle_s
        asked = log.ends(ORDERS_NEW)
        say("waiting for the engine to answer what is in the log")
        _wait(lambda: _behind(log.committed(ENGINE_GROUP, ORDERS_NEW), asked), deadline, "the engine", late)
        required = log.committed(ENGINE_GROUP, ORDERS_NEW)
        committed: dict[int, int] = {}
        if exchange.database_url is not None:
            answered = log.ends(ORDERS_EXCHANGE)
            say("waiting for the tables to have the answers")
            url = exchange.database_url
            _wait(lambda: _behind(_progress(url), answered), deadline, "the sink", late)
            committed = log.committed(SINK_GROUP, ORDERS_EXCHANGE)
            tables = TablesSnapshot(url)
        say("reading tables and books")
        tables_cut = None if tables is None else tables.cut(committed)
        books: list[BookAnswer] = []
        if exchange.keeper_url is not None:
            symbols = sorted(tables_cut.sequences) if tables_cut is not None else []
            books = asyncio.run(sample_books(exchange, symbols, moments=BOOK_MOMENTS))
        ends = {topic: log.ends(topic) for topic in (ORDERS_EXCHANGE, ORDERS_DEAD)}
        # Only now: whatever was answered before the ends above was in the log before these.
        ends[ORDERS_NEW] = log.ends(ORDERS_NEW)
        return LiveEvidence(log, Cut(log.partitions, ends, required, tables_cut, books, late), tables)
    except BaseException:
        if tables is not None:
            tables.close()
        log.close()
        raise


def _progress(database_url: str) -> dict[int, int]:
    snapshot = TablesSnapshot(database_url)
    try:
        return snapshot.progress()
    finally:
        snapshot.close()


def _behind(reached: dict[int, int], ends: dict[int, int]) -> str | None:
    """Where ``reached`` is behind ``ends``; None when it is nowhere."""
    for partition, end in ends.items():
        if reached.get(partition, 0) < end:
            return f"partition {partition} is at {reached.get(partition, 0)} of {end}"
    return None


def _wait(behind: Callable[[], str | None], deadline: float, who: str, late: list[str]) -> None:
    while (where := behind()) is not None:
        if time.monotonic() > deadline:
            late.append(f"{who} has not caught up in time: {where}.")
            return
        time.sleep(_POLL_S)


async def sample_books(exchange: Exchange, symbols: list[int], *, moments: int) -> list[BookAnswer]:
    """Ask for some books at random moments, then for all of them; one that is not there has the sequence 0.

    Raises:
        SetupError: the book API refuses, or is not there.
    """
    chance = random.Random()  # noqa: S311 - moments need no secrecy
    found: dict[tuple[int, int], BookAnswer] = {}
    headers = {"Authorization": aiohttp.encode_basic_auth(exchange.user, exchange.password)}
    timeout = aiohttp.ClientTimeout(total=_HTTP_TIMEOUT_S)
    # Of all books together: many may not be there, and each would be waited for.
    there_by = time.monotonic() + exchange.settle_s
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as client:
        for _ in range(moments if symbols else 0):
            for symbol_id in chance.sample(symbols, min(len(symbols), _BOOKS_A_MOMENT)):
                await _ask(client, exchange, symbol_id, found, there_by)
            await asyncio.sleep(chance.uniform(0, _PAUSE_S_MAX))
        for symbol_id in symbols:
            await _ask(client, exchange, symbol_id, found, there_by)
    return list(found.values())


async def _ask(
    client: aiohttp.ClientSession, exchange: Exchange, symbol_id: int, found: dict[tuple[int, int], BookAnswer],
    there_by: float,
) -> None:  # fmt: skip
    url = f"{exchange.keeper_url}/order-book/{symbol_id}"
    until = {_NO_BOOK: there_by, _COME_AGAIN: time.monotonic() + exchange.settle_s}
    try:
        # A keeper that is not there yet, or whose Redis is not, says so and asks to come again; one that is behind has
        # no book yet.
        while (response := await client.get(url, params={"depth": _DEPTH})).status in until:
            response.release()
            if time.monotonic() > until[response.status]:
                break
            await asyncio.sleep(_POLL_S)
        async with response:
            if response.status == _NO_BOOK:
                found[symbol_id, 0] = BookAnswer(symbol_id, 0, [], [])
                return
            if response.status != 200:
                raise SetupError(f"{url} answers {response.status}; check --user and that the keeper is ready.")
            book = await response.json()
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise SetupError(f"{url} does not answer ({exc!r}); is --keeper-url right? --no-books leaves it out.") from exc
    buy, sell = ([(row["price"], row["quantity"], row["orders"]) for row in book[side]] for side in ("buy", "sell"))
    is_cut = max(len(buy), len(sell)) >= _DEPTH
    answer = BookAnswer(symbol_id, book["orderBookSnapShotId"], buy, sell, is_cut)
    found[symbol_id, answer.sequence] = answer
