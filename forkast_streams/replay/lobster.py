"""LOBSTER's recordings of Nasdaq order flow: the rows of its message and order book files.

Format: https://lobsterdata.com/info/DataStructure.php
"""

from __future__ import annotations

import csv
import lzma
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from forkast_streams.errors import SetupError

# Prices stand in the files times this.
_PRICE_SCALE = Decimal(10_000)
# An order book file fills up missing levels with prices of this size and more, and of the opposite sign for bids.
_NO_PRICE = 9_999_999_999
_NANOSECONDS = 1_000_000_000


class MessageType(IntEnum):
    """What happened to an order."""

    PLACED = 1
    REDUCED = 2
    DELETED = 3
    EXECUTED = 4
    EXECUTED_HIDDEN = 5
    CROSS_TRADE = 6
    HALTED = 7


class Message(NamedTuple):
    """A row of a message file.

    Attributes:
        time_ns: nanoseconds after midnight.
        order_id: the exchange's number of the resting order; 0 for a hidden one.
        size: shares placed, cancelled or executed.
        side: BUY or SELL, of the resting order.
    """

    time_ns: int
    type: MessageType
    order_id: int
    size: int
    price: Decimal
    side: str


Levels = Mapping[Decimal, Decimal]


class BookState(NamedTuple):
    """A row of an order book file: quantity by price of the best ``depth`` levels of a side, or of all it has."""

    depth: int
    bids: Levels
    asks: Levels


def read_messages(path: Path) -> list[Message]:
    """Read a message file, ``.csv`` or ``.csv.xz``.

    Raises:
        SetupError: the file cannot be read, or a row is no LOBSTER message.
    """
    messages = []
    for number, row in _rows(path):
        try:
            messages.append(_message(row))
        except (ValueError, ArithmeticError) as exc:
            raise _not_lobster(path, number, "6 columns: time, type, order id, size, price, direction") from exc
    return messages


def read_book_states(path: Path) -> list[BookState]:
    """Read an order book file, ``.csv`` or ``.csv.xz``: the best levels after each row of the message file.

    Raises:
        SetupError: the file cannot be read, or a row is no LOBSTER book.
    """
    states = []
    for number, row in _rows(path):
        try:
            states.append(_book_state([int(cell) for cell in row]))
        except ValueError as exc:
            raise _not_lobster(path, number, "ask price, ask size, bid price, bid size for each level") from exc
    return states


def _message(row: list[str]) -> Message:
    # Newer files have a seventh column, which names who takes part in a halt.
    time, kind, order_id, size, price, direction = row[:6]
    return Message(
        int(Decimal(time) * _NANOSECONDS),
        MessageType(int(kind)),
        int(order_id),
        int(size),
        Decimal(price) / _PRICE_SCALE,
        "BUY" if int(direction) == 1 else "SELL",
    )


def _book_state(cells: list[int]) -> BookState:
    if len(cells) % 4:
        raise ValueError("a level has four columns")
    asks, bids = zip(cells[0::4], cells[1::4], strict=True), zip(cells[2::4], cells[3::4], strict=True)
    return BookState(len(cells) // 4, _levels_of(bids), _levels_of(asks))


def _levels_of(cells: Iterator[tuple[int, int]]) -> Levels:
    return {Decimal(price) / _PRICE_SCALE: Decimal(size) for price, size in cells if abs(price) < _NO_PRICE}


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows with their line numbers, without empty ones, of which some files end in one."""
    try:
        with lzma.open(path, "rt", newline="") if path.suffix == ".xz" else path.open(newline="") as lines:
            yield from ((number, row) for number, row in enumerate(csv.reader(lines), start=1) if row)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, csv.Error) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise SetupError(f"{path} cannot be read ({why}); name a LOBSTER file, .csv or .csv.xz.") from exc


def _not_lobster(path: Path, line: int, columns: str) -> SetupError:
    return SetupError(f"{path} is not such a LOBSTER file: line {line} does not have {columns}.")
