"""Holds the tables against the replayed log: sums first, and rows only where the sums differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from forkast_streams.audit.evidence import ORDERS_EXCHANGE, Cut, Evidence
from forkast_streams.audit.findings import Finding, Findings
from forkast_streams.audit.fold import SymbolFold
from forkast_streams.audit.rows import ORDER_COLUMNS, TRADE_COLUMNS, Rows, Sum, row_hash
from forkast_streams.topics import partition_for

_decode = msgspec.json.Decoder().decode

_STATUS = list(ORDER_COLUMNS).index("status")

# By table and symbol, the rows that are in no table any more though all is right: an id that was forgotten was used
# again, and its later order went over the former. They stay gone, so the log is read once to know them.
Overwritten = dict[tuple[str, int], Sum]


def check_progress(cut: Cut, findings: Findings) -> None:
    """Check that the tables are not ahead of the log, and that no more was committed than they have."""
    assert cut.tables is not None
    for partition, position in cut.tables.next_offsets.items():
        findings.looked["I-18"] += 1
        end = cut.ends[ORDERS_EXCHANGE].get(partition, 0)
        committed = cut.tables.committed.get(partition, 0)
        if position > end:
            message = f'"SinkProgress" of partition {partition} is {position}, beyond the log, which ends at {end}.'
            findings.violate("I-11", message)
        if committed > position:
            message = f"the sink committed offset {committed} of partition {partition}, the tables are at {position}."
            findings.violate("I-18", message)


def check_tables(
    evidence: Evidence, rows: dict[int, Rows], findings: Findings, overwritten: Overwritten | None = None
) -> None:
    """Compare the tables with the rows that the events make.

    Args:
        evidence: its tables, and the events again where a row must be found.
        rows: by symbol, the sums of the rows that must be there.
        findings: where violations go: one for each wrong row of a symbol, one for each other symbol with wrong rows.
        overwritten: what earlier checks of the same tables have found, to be kept for later ones.
    """
    overwritten = {} if overwritten is None else overwritten
    cut = evidence.cut
    assert cut.tables is not None
    for symbol_id in sorted(cut.tables.sequences.keys() | rows.keys()):
        sequence, wanted = cut.tables.sequences.get(symbol_id, 0), rows.get(symbol_id)
        if sequence != (0 if wanted is None else wanted.sequence):
            message = f'"SymbolSequence" of symbol {symbol_id} is {sequence}, the events at the progress of the tables'
            findings.violate("I-11", f"{message} make it {0 if wanted is None else wanted.sequence}.")
    wrong = 0
    for table, sums in (("Order", cut.tables.orders), ("Trade", cut.tables.trades)):
        for symbol_id in sorted(sums.keys() | rows.keys()):
            wanted_sum = _sum(rows.get(symbol_id), table)
            findings.looked["I-11"] += wanted_sum.count
            missing = wanted_sum.less(sums.get(symbol_id, Sum()))
            if missing == overwritten.get((table, symbol_id), Sum()):
                continue
            if wrong:
                # To find a row takes the log of its partition once more, and one is shown.
                findings.violations["I-11"] += 1
            else:
                wrong = find_rows(evidence, table, symbol_id, findings)
                if not wrong:
                    overwritten[table, symbol_id] = missing


def _sum(rows: Rows | None, table: str) -> Sum:
    if rows is None:
        return Sum()
    return rows.orders if table == "Order" else rows.trades


def find_rows(evidence: Evidence, table: str, symbol_id: int, findings: Findings) -> int:
    """Report the rows of a symbol that are wrong, missing or too many; return how many they are.

    There may be none: when an id that was forgotten is used again the sums differ though each row is right.
    """
    wanted: dict[str, int] = {}
    for row_id, text in _expected(evidence, table, symbol_id):
        wanted[row_id] = row_hash(text)
    wrong = 0
    for row in evidence.rows(table, symbol_id):
        hashed = wanted.pop(row[0], None)
        if hashed != row_hash("|".join(row)):
            wrong += 1
            _report(evidence, table, symbol_id, row[0], row, findings)
    for row_id in wanted:
        wrong += 1
        _report(evidence, table, symbol_id, row_id, None, findings)
    return wrong


def _report(
    evidence: Evidence, table: str, symbol_id: int, row_id: str, row: list[str] | None, findings: Findings
) -> None:
    if "I-11" in findings.first:
        findings.violations["I-11"] += 1
        return
    texts = None
    for found, text in _expected(evidence, table, symbol_id):
        if found == row_id:
            texts = text.split("|")
    tables = evidence.cut.tables
    later = [] if tables is None or table == "Trade" else tables.later_columns
    names = [*(ORDER_COLUMNS if table == "Order" else TRADE_COLUMNS), *later]
    shown: dict[str, Any] = {
        "where": f'table "{table}"',
        "is": None if row is None else dict(zip(names, row, strict=True)),
        "must be": None if texts is None else dict(zip(names, texts, strict=True)),
    }
    what = "is missing" if row is None else "must not be there" if texts is None else "is not what the events make it"
    findings.violations["I-11"] += 1
    findings.first["I-11"] = Finding("I-11", f'the row {row_id} of "{table}", symbol {symbol_id}, {what}.', shown)


def _expected(evidence: Evidence, table: str, symbol_id: int) -> Iterator[tuple[str, str]]:
    """Ids and texts of the rows that a symbol must have; of one id the last counts."""
    cut = evidence.cut
    assert cut.tables is not None
    partition = partition_for(symbol_id, cut.partitions)
    fold = SymbolFold(symbol_id, lambda *_: None, cut.tables.later_columns)
    made: list[tuple[str, str]] = []
    fold.rows.on_row = lambda of, text: made.append((of, text))
    accepted: set[str] = set()
    key = b"%d" % symbol_id
    end = min(cut.tables.next_offsets.get(partition, 0), cut.ends[ORDERS_EXCHANGE][partition])
    for record in evidence.records(ORDERS_EXCHANGE, partition, 0, end):
        if record.key != key:
            continue
        try:
            event = _decode(record.value or b"")
            if event["sequence"] <= fold.sequence:
                continue
            fold.apply(event["type"], event["data"], event["sequence"], event["timestamp"], is_last=True)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError):
            continue
        for of, text in made:
            if of == table:
                yield from _latest(text, accepted)
        made.clear()
    if table == "Order":
        for order in fold.live.values():
            yield order.id, fold.rows.order_text(order)


def _latest(text: str, accepted: set[str]) -> Iterator[tuple[str, str]]:
    """The row, unless it is that of a rejection which has another order's id."""
    columns = text.split("|")
    is_rejected = len(columns) > _STATUS and columns[_STATUS] == "REJECTED"
    if is_rejected and columns[0] in accepted:
        return
    if not is_rejected:
        accepted.add(columns[0])
    yield columns[0], text
