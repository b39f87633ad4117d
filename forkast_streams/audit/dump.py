"""Dumps: what an audit judges as files, to be judged again elsewhere.

A folder with ``cut.json`` and a file of JSON lines for each partition of each topic and for each table, compressed or
not. The bytes of records are base64.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from forkast_streams.audit.evidence import TOPICS, Cut, Evidence, Row
from forkast_streams.audit.records import Record
from forkast_streams.audit.rows import Sum, row_hash
from forkast_streams.errors import SetupError

TABLES = ("Order", "Trade")

_CUT_FILE = "cut.json"
_SYMBOL_COLUMN = 1
_decode_record = msgspec.json.Decoder(Record).decode
_decode_row = msgspec.json.Decoder(Row).decode


def write_dump(
    folder: Path, evidence: Evidence, all_rows: Callable[[str], Iterator[Row]], on_record: Callable[[], None]
) -> None:
    """Write the records and rows of a cut into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    # Until it is written again nobody takes what another dump has left here for whole.
    (folder / _CUT_FILE).unlink(missing_ok=True)
    cut = evidence.cut
    for topic in TOPICS:
        for partition, end in cut.ends[topic].items():
            with _create(folder / f"{topic}-{partition}.jsonl.gz") as file:
                for record in evidence.records(topic, partition, 0, end):
                    file.write(msgspec.json.encode(record) + b"\n")
                    on_record()
    for table in TABLES if cut.tables is not None else ():
        with _create(folder / f"{table}.jsonl.gz") as file:
            for row in all_rows(table):
                file.write(msgspec.json.encode(row) + b"\n")
    # Last, so that a folder with it is whole.
    (folder / _CUT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(cut), indent=1))


class DumpEvidence:
    """The cut of a dump.

    Args:
        folder: where it is.
        with_sums: make the sums of the tables anew from their rows.

    Raises:
        SetupError: the folder has no dump, or a broken one.
    """

    def __init__(self, folder: Path, *, with_sums: bool = True) -> None:
        self._folder = folder
        try:
            self.cut = msgspec.json.decode((folder / _CUT_FILE).read_bytes(), type=Cut)
        except (OSError, msgspec.MsgspecError) as exc:
            raise SetupError(f"{folder} has no whole dump ({exc}); write one with `forkast audit --dump`.") from exc
        tables = self.cut.tables
        if tables is not None and with_sums:
            tables.orders, tables.trades = self._sums("Order"), self._sums("Trade")

    def records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        """The records from ``start`` to before ``end``."""
        name, reached = f"{topic}-{partition}", 0
        for record in self._read(name, _decode_record):
            reached = record.offset + 1
            if start <= record.offset < end:
                yield record
        if reached < end:
            raise SetupError(f"{name} of the dump ends at offset {reached} instead of {end}; write it again.")

    def rows(self, table: str, symbol_id: int) -> Iterator[Row]:
        """The rows of a symbol."""
        wanted = str(symbol_id)
        return (row for row in self._read(table, _decode_row) if row[_SYMBOL_COLUMN] == wanted)

    def close(self) -> None:
        """Nothing is open."""

    def _sums(self, table: str) -> dict[int, Sum]:
        sums: dict[int, Sum] = {}
        for row in self._read(table, _decode_row):
            sums.setdefault(int(row[_SYMBOL_COLUMN]), Sum()).add(row_hash("|".join(row)))
        return sums

    def _read(self, name: str, decode: Callable[[bytes], Any]) -> Iterator[Any]:
        path = self._folder / f"{name}.jsonl.gz"
        plain = path.with_suffix("")
        if not (path.exists() or plain.exists()):
            raise SetupError(f"the dump lacks {path.name}; write it again.")
        try:
            with gzip.open(path) if path.exists() else plain.open("rb") as file:
                for line in file:
                    if line.strip():
                        yield decode(line)
        except (OSError, EOFError, msgspec.MsgspecError) as exc:
            raise SetupError(f"{path.name} of the dump cannot be read ({exc}); write it again.") from exc


def _create(path: Path) -> gzip.GzipFile:
    return gzip.open(path, "wb", compresslevel=1)
