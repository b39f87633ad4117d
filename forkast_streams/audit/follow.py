"""The audit that runs beside the exchange and never ends: ``/ready`` and ``/metrics`` are red after a violation."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from aiohttp import web

from forkast_streams.audit.capture import ENGINE_GROUP, SINK_GROUP, Exchange, LiveEvidence, sample_books
from forkast_streams.audit.evidence import (
    ORDERS_DEAD,
    ORDERS_EXCHANGE,
    ORDERS_NEW,
    BookAnswer,
    Cut,
    TablesCut,
    unread_inputs,
)
from forkast_streams.audit.findings import INVARIANTS, Findings
from forkast_streams.audit.kafka_log import KafkaLog
from forkast_streams.audit.partition import PartitionAudit
from forkast_streams.audit.reference import NoReference, Reference
from forkast_streams.audit.rows import Rows
from forkast_streams.audit.signatures import Signatures, read_keys
from forkast_streams.audit.standstill import Standstill
from forkast_streams.audit.strays import StrayLedger
from forkast_streams.audit.table_check import Overwritten, check_progress, check_tables
from forkast_streams.audit.tables import TablesSnapshot
from forkast_streams.errors import ForkastError, SetupError

log = logging.getLogger(__name__)

# Seconds between two passes, as many as a pass takes but not fewer and not more than these; a violation shows at the
# latest after the pass that comes next.
PASS_INTERVAL_S = 5.0
PASS_INTERVAL_S_MAX = 20.0
# How long a published book may be behind what the log has long had before it counts as wrong.
STALE_BOOK_S = 60.0


class Follower:
    """Takes one cut after the other and audits what is new.

    Args:
        exchange: where it is.
        replays: whether the reference replays the log.
        clock: seconds that never go back.

    Attributes:
        findings: of all passes that are complete.
        why_not_ready: None when the last pass was good, nothing was ever found and nobody stands still.
        passes: how many could be completed.
        records: read in all of them.
        last_pass_s: seconds that the last one took.
    """

    def __init__(
        self, exchange: Exchange, *, replays: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.findings = Findings()
        self.why_not_ready: str | None = "the first pass is under way"
        self.passes = 0
        self.records = 0
        self.last_pass_s = 0.0
        self._between = Findings()
        self._exchange = exchange
        self._replays = replays
        self._partitions: dict[int, PartitionAudit] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="forkast-audit-")
        self._ledger = StrayLedger(Path(self._scratch.name))
        self._log: KafkaLog | None = None
        self._stale_since: dict[int, float] = {}
        self._overwritten: Overwritten = {}
        self._without_books: str | None = None
        self._clock = clock
        self._engine, self._sink = Standstill("the engine", clock), Standstill("the sink", clock)
        self._standing: str | None = None

    def close(self) -> None:
        """Give connections and temporary files back."""
        self._disconnect()
        for partition in self._partitions.values():
            partition.close()
        self._scratch.cleanup()

    def run_pass(self) -> None:
        """Audit what has come since the last pass; errors of servers are kept for the next one."""
        started = self._clock()
        try:
            if self._log is None:
                self._log = KafkaLog(self._exchange.brokers)
            self._pass(self._log)
        except ForkastError as exc:
            self._disconnect()
            self.why_not_ready = f"the audit cannot run: {exc}"
            return
        except Exception as exc:
            # A mistake of the audit itself must not end it: nobody would see that it does not look any more.
            log.exception("a pass of the audit failed")
            self._disconnect()
            self.why_not_ready = f"the audit cannot run: {exc!r}"
            return
        self.passes += 1
        self.last_pass_s = self._clock() - started
        found = Findings()
        found.merge(self._between)
        for partition in self._partitions.values():
            found.merge(partition.findings)
        # As a whole, because a web request may read it at any time.
        self.findings = found
        broken = [found.first[invariant] for invariant in INVARIANTS if invariant in found.first]
        violation = f"{broken[0].invariant} is broken: {broken[0].message}" if broken else None
        self.why_not_ready = violation or self._standing or self._without_books

    def _disconnect(self) -> None:
        if self._log is not None:
            source, self._log = self._log, None
            source.close()

    def _pass(self, source: KafkaLog) -> None:
        tables = None
        if self._exchange.database_url is not None:
            # Read before the tables, which can only be further on then.
            committed = source.committed(SINK_GROUP, ORDERS_EXCHANGE)
            tables = TablesSnapshot(self._exchange.database_url)
        try:
            tables_cut = None if tables is None else tables.cut(committed)
            books: list[BookAnswer] = []
            if self._exchange.keeper_url is not None and tables_cut is not None:
                books = self._sample_books(sorted(tables_cut.sequences))
            required = source.committed(ENGINE_GROUP, ORDERS_NEW)
            ends = {topic: source.ends(topic) for topic in (ORDERS_EXCHANGE, ORDERS_DEAD)}
            ends[ORDERS_NEW] = source.ends(ORDERS_NEW)
            cut = Cut(source.partitions, ends, required, tables_cut, books)
            self._judge(LiveEvidence(source, cut, tables))
            self._standing = self._who_stands(cut)
        finally:
            if tables is not None:
                tables.close()

    def _who_stands(self, cut: Cut) -> str | None:
        """Who has been behind for too long; the end of a log may be nothing that is to be answered."""
        ends = cut.ends[ORDERS_NEW]
        behind = {number: audit.next_input > cut.required[number] for number, audit in self._partitions.items()}
        engine = self._engine.look(cut.required, {number: ends[number] if behind[number] else 0 for number in behind})
        if cut.tables is None:
            return engine
        sink = self._sink.look(cut.tables.next_offsets, cut.ends[ORDERS_EXCHANGE])
        return engine or sink

    def _sample_books(self, symbols: list[int]) -> list[BookAnswer]:
        """All books; none when the keeper is away, which must not hide what log and tables show."""
        self._without_books = None
        try:
            return asyncio.run(sample_books(self._exchange, symbols, moments=0))
        except SetupError as exc:
            self._without_books = f"the books cannot be audited: {exc}"
            return []

    def _judge(self, evidence: LiveEvidence) -> None:
        cut, keys = evidence.cut, read_keys(self._exchange.producer_keys)
        signatures = None if keys is None else Signatures(keys)
        reached: dict[int, int] = {}
        for number in range(cut.partitions):
            audit = self._partition(number, cut)
            audit.signatures = signatures
            self._add_books(audit, cut)
            if cut.tables is not None:
                audit.tables.watch(cut.tables.next_offsets.get(number, 0), audit.folds)
            for feed, topic in (
                (audit.inputs, ORDERS_NEW),
                (audit.events, ORDERS_EXCHANGE),
                (audit.letters, ORDERS_DEAD),
            ):
                feed.extend(evidence.records(topic, number, feed.reached, cut.ends[topic][number]))
            audit.advance(cut.required[number])
            # Before a log is read from another place.
            reached[number] = audit.reached(cut.ends[ORDERS_NEW][number])
            audit.expect_no_more(cut.ends[ORDERS_NEW][number])
            audit.books.expect_none()
        self._ledger.flush()
        self._ledger.compare(
            self._between, cut.required, reached, lambda home: unread_inputs(evidence, home, reached[home])
        )
        if cut.tables is not None:
            check_progress(cut, self._between)
            self._check_tables(evidence, cut.tables)

    def _partition(self, number: int, cut: Cut) -> PartitionAudit:
        audit = self._partitions.get(number)
        if audit is None:
            audit = self._partitions[number] = PartitionAudit(
                number,
                cut.partitions,
                self._ledger,
                later_columns=[] if cut.tables is None else cut.tables.later_columns,
                on_record=self._count,
                reference=Reference() if self._replays else NoReference(),
            )
        return audit

    def _count(self) -> None:
        self.records += 1

    def _add_books(self, audit: PartitionAudit, cut: Cut) -> None:
        """Compare published books; one that stays behind for long is wrong."""
        now = self._clock()
        answers = [answer for answer in cut.books if audit.is_home_of(answer.symbol_id)]
        stale = {answer.symbol_id for answer in audit.books.add(answers)}
        for answer in answers:
            if answer.symbol_id not in stale:
                self._stale_since.pop(answer.symbol_id, None)
            elif now - self._stale_since.setdefault(answer.symbol_id, now) > STALE_BOOK_S:
                message = f"the book of symbol {answer.symbol_id} has stood at sequence {answer.sequence} for over"
                self._between.violate("I-12", f"{message} {STALE_BOOK_S:g} s, while the log went on.")

    def _check_tables(self, evidence: LiveEvidence, tables: TablesCut) -> None:
        """Compare the symbols of those partitions whose tables are not behind what was audited already."""
        if "I-11" in self._between.first:
            # What was found stays found; finding the row reads the log again, and once is enough.
            return
        behind = {number for number, audit in self._partitions.items() if audit.tables.rows is None}
        rows: dict[int, Rows] = {}
        for number, audit in self._partitions.items():
            if number not in behind:
                rows |= audit.tables.rows or {}
        for of_symbol in (tables.sequences, tables.orders, tables.trades):
            for symbol_id in list(of_symbol):
                if any(self._partitions[number].is_home_of(symbol_id) for number in behind):
                    del of_symbol[symbol_id]
        check_tables(evidence, rows, self._between, self._overwritten)


def metrics(follower: Follower) -> Iterator[str]:
    """Lines in Prometheus' text format."""
    found = follower.findings
    yield "# HELP forkast_audit_ok Whether the last pass was good, no violation was found and nobody stands still."
    yield "# TYPE forkast_audit_ok gauge"
    yield f"forkast_audit_ok {int(follower.why_not_ready is None)}"
    yield "# HELP forkast_audit_violations_total Violations found, by invariant."
    yield "# TYPE forkast_audit_violations_total counter"
    for invariant in INVARIANTS:
        yield f'forkast_audit_violations_total{{invariant="{invariant}"}} {found.violations[invariant]}'
    yield "# HELP forkast_audit_records_total Records of all topics audited."
    yield "# TYPE forkast_audit_records_total counter"
    yield f"forkast_audit_records_total {follower.records}"
    yield "# HELP forkast_audit_passes_total Passes that could be completed."
    yield "# TYPE forkast_audit_passes_total counter"
    yield f"forkast_audit_passes_total {follower.passes}"
    yield "# HELP forkast_audit_pass_seconds How long the last complete pass took."
    yield "# TYPE forkast_audit_pass_seconds gauge"
    yield f"forkast_audit_pass_seconds {follower.last_pass_s:.3f}"


async def serve(follower: Follower, host: str, port: int) -> None:
    """Run passes and serve ``/health``, ``/ready`` and ``/metrics`` until cancelled.

    Raises:
        SetupError: the port is taken.
    """

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"role": "audit", "status": "up"})

    async def ready(_: web.Request) -> web.Response:
        reason = follower.why_not_ready
        body = {"role": "audit", "ready": reason is None, "reasons": [] if reason is None else [reason]}
        return web.json_response(body, status=200 if reason is None else 503)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(text="\n".join(metrics(follower)) + "\n", content_type="text/plain")

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/ready", ready), web.get("/metrics", show_metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as exc:
            raise SetupError(f"port {port} of {host} cannot be used ({exc.strerror}); choose one with --port.") from exc
        await _run_passes(follower)
    finally:
        await runner.cleanup()
        # Its connections have an event loop of their own, which does not run inside of this one.
        await asyncio.to_thread(follower.close)


async def _run_passes(follower: Follower) -> None:
    was_ready = False
    while True:
        running = asyncio.create_task(asyncio.to_thread(follower.run_pass))
        try:
            await asyncio.shield(running)
        finally:
            # A thread cannot be cancelled, and what it works with must not be closed under it.
            await running
        if follower.why_not_ready is not None and was_ready:
            log.error("audit: %s", follower.why_not_ready)
        was_ready = follower.why_not_ready is None
        await asyncio.sleep(min(PASS_INTERVAL_S_MAX, max(PASS_INTERVAL_S, follower.last_pass_s)))
