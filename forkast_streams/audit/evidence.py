"""What an audit judges: a consistent cut of the exchange, and where its records can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct, field

from forkast_streams.audit.records import Record
from forkast_streams.audit.rows import Sum

ORDERS_NEW = "orders.new"
ORDERS_EXCHANGE = "orders.exchange"
ORDERS_DEAD = "orders.dead"
TOPICS = (ORDERS_NEW, ORDERS_EXCHANGE, ORDERS_DEAD)

Row = list[str]


class BookAnswer(Struct):
    """A book as the API has shown it; levels are price, quantity and number of orders, best first.

    Attributes:
        sequence: of its last event; 0 when there is no such book.
        is_cut: whether each side may have more levels than it shows, being as long as an answer can be.
    """

    symbol_id: int
    sequence: int
    buy: list[tuple[str, str, int]]
    sell: list[tuple[str, str, int]]
    is_cut: bool = False


class TablesCut(Struct):
    """The tables at one moment.

    Attributes:
        later_columns: those of later versions that "Order" has.
        next_offsets: "SinkProgress" by partition.
        committed: what the sink's group had committed before, by partition.
        sequences: "SymbolSequence" by symbol.
        orders: number of rows and sum of their hashes, by symbol.
        trades: the same of "Trade".
    """

    later_columns: list[str]
    next_offsets: dict[int, int]
    committed: dict[int, int]
    sequences: dict[int, int]
    orders: dict[int, Sum]
    trades: dict[int, Sum]


class Cut(Struct):
    """Which part of a running exchange is judged; offsets are by partition and exclusive.

    Attributes:
        ends: of each topic, what is read.
        required: the inputs before this offset must have their outcome.
        tables: None when the tables are not looked at.
        books: answers of the book API, whose sequences lie before the ends.
        late: sentences about what had not caught up in time.
    """

    partitions: int
    ends: dict[str, dict[int, int]]
    required: dict[int, int]
    tables: TablesCut | None = None
    books: list[BookAnswer] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    def records(self) -> int:
        """How many records there are to read."""
        return sum(end for of_topic in self.ends.values() for end in of_topic.values())


class Evidence(Protocol):
    """Records and rows of a cut."""

    cut: Cut

    def records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        """The records from ``start`` to before ``end``, in order.

        Raises:
            SetupError: they cannot be read, or the log does not begin at offset 0.
        """

    def rows(self, table: str, symbol_id: int) -> Iterator[Row]:
        """The rows of a symbol in "Order" or "Trade", each as the texts of its columns."""

    def close(self) -> None:
        """Let go of connections."""


def unread_inputs(evidence: Evidence, partition: int, reached: int) -> Iterator[Record]:
    """The inputs from ``reached`` on."""
    return evidence.records(ORDERS_NEW, partition, reached, evidence.cut.ends[ORDERS_NEW][partition])
