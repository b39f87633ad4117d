"""Audits a whole cut: its partitions, in processes of their own when there is much to read, then the tables."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from msgspec import Struct

from forkast_streams.audit.capture import LiveEvidence
from forkast_streams.audit.dump import DumpEvidence
from forkast_streams.audit.evidence import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW, Cut, Evidence, unread_inputs
from forkast_streams.audit.findings import Findings
from forkast_streams.audit.journal import Journal
from forkast_streams.audit.kafka_log import KafkaLog, for_other_processes
from forkast_streams.audit.partition import PartitionAudit
from forkast_streams.audit.reference import NoReference, Reference
from forkast_streams.audit.rows import Rows
from forkast_streams.audit.signatures import Signatures, read_keys
from forkast_streams.audit.strays import StrayLedger
from forkast_streams.audit.table_check import check_progress, check_tables
from forkast_streams.producer_keys import KeyFile

# Below this many records a second process costs more than it saves.
_RECORDS_FOR_PROCESSES = 50_000
_PROCESSES_MAX = 4
_TICK_S = 0.1


class Plan(Struct):
    """What a process must know to audit partitions.

    Attributes:
        brokers: where the records are; None when they are in ``folder``.
        folder: of a dump.
        scratch: folder of the strays' ledger.
        journal: file of what clients were told.
        replays: whether the reference replays the log.
        keys: of the producers, by which the engines judge who may write; None where they have none.
    """

    cut: Cut
    scratch: Path
    brokers: list[str] | None = None
    folder: Path | None = None
    journal: Path | None = None
    replays: bool = True
    keys: KeyFile | None = None


class PartitionResult(Struct):
    """What the audit of a partition gives.

    Attributes:
        rows: what the tables must have, by symbol.
        told: ids of the journal that are in the inputs.
        reached: the offset before which the inputs were read.
    """

    partition: int
    findings: Findings
    rows: dict[int, Rows]
    told: set[str]
    reached: int


def audit(plan: Plan, evidence: Evidence, progress: Callable[[int], None] = lambda _: None) -> Findings:
    """Audit a cut.

    Args:
        plan: see there.
        evidence: the same evidence, open in this process.
        progress: told the number of records read so far.

    Raises:
        SetupError: something cannot be read.
    """
    findings = Findings()
    cut = plan.cut
    for sentence in cut.late:
        findings.violate("I-20", sentence)
    findings.looked["I-20"] += cut.partitions
    journal = None if plan.journal is None else Journal(plan.journal, findings)
    counts = multiprocessing.get_context("spawn").Array("q", cut.partitions, lock=False)
    if cut.records() < _RECORDS_FOR_PROCESSES or (os.cpu_count() or 1) < 2:
        results = _audit_here(plan, evidence, journal, counts, progress)
    else:
        results = _audit_in_processes(plan, counts, progress)
    rows: dict[int, Rows] = {}
    for result in sorted(results, key=lambda each: each.partition):
        findings.merge(result.findings)
        rows |= result.rows
    reached = {result.partition: result.reached for result in results}
    StrayLedger(plan.scratch).compare(
        findings, cut.required, reached, lambda home: unread_inputs(evidence, home, reached[home])
    )
    if journal is not None:
        journal.check_missing({order_id for result in results for order_id in result.told}, findings)
    if cut.tables is not None:
        check_progress(cut, findings)
        check_tables(evidence, rows, findings)
    return findings


def _audit_here(
    plan: Plan, evidence: Evidence, journal: Journal | None, counts: Any, progress: Callable[[int], None]
) -> list[PartitionResult]:
    results = []
    for partition in range(plan.cut.partitions):
        results.append(audit_partition(plan, evidence, journal, partition, counts))
        progress(sum(counts))
    return results


def _audit_in_processes(plan: Plan, counts: Any, progress: Callable[[int], None]) -> list[PartitionResult]:
    cut = plan.cut

    def size(partition: int) -> int:
        return sum(of_topic[partition] for of_topic in cut.ends.values())

    context = multiprocessing.get_context("spawn")
    workers = min(_PROCESSES_MAX, os.cpu_count() or 1, cut.partitions)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(plan, counts)) as pool:
        # The largest first, so that none is left to the end alone.
        partitions = sorted(range(cut.partitions), key=size, reverse=True)
        waiting: set[Future[PartitionResult]] = {pool.submit(_audit_there, partition) for partition in partitions}
        results = []
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_TICK_S, return_when=FIRST_COMPLETED)
                results += [future.result() for future in done]
                progress(sum(counts))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


_started: dict[str, Any] = {}


def _start(plan: Plan, counts: Any) -> None:
    """Keep in a worker process what all its partitions need."""
    evidence: Evidence
    if plan.folder is not None:
        evidence = DumpEvidence(plan.folder, with_sums=False)
    else:
        evidence = LiveEvidence(KafkaLog(plan.brokers or []), plan.cut, None)
    # A process of a pool ends without running what is registered with atexit.
    Finalize(None, evidence.close, exitpriority=10)
    journal = None if plan.journal is None else Journal(plan.journal)
    _started.update(plan=plan, counts=counts, evidence=evidence, journal=journal)


def _audit_there(partition: int) -> PartitionResult:
    return audit_partition(_started["plan"], _started["evidence"], _started["journal"], partition, _started["counts"])


def audit_partition(
    plan: Plan, evidence: Evidence, journal: Journal | None, partition: int, counts: Any
) -> PartitionResult:
    """Audit one partition of a cut; ``counts[partition]`` is counted up with its records."""
    cut = plan.cut
    told: set[str] = set()
    ledger = StrayLedger(plan.scratch)

    def count() -> None:
        counts[partition] += 1

    def see(command: dict[str, Any]) -> None:
        if journal is not None and (order_id := journal.see(command)) is not None:
            told.add(order_id)

    def accept(data: dict[str, Any]) -> None:
        if journal is not None and (order_id := journal.check_owner(data, watched.findings)) is not None:
            told.add(order_id)

    watched = PartitionAudit(
        partition,
        cut.partitions,
        ledger,
        later_columns=[] if cut.tables is None else cut.tables.later_columns,
        on_record=count,
        on_input=see if journal is not None else None,
        on_accepted=accept if journal is not None else None,
        reference=Reference() if plan.replays else NoReference(),
        signatures=None if plan.keys is None else Signatures(plan.keys),
    )
    try:
        feeds = ((watched.inputs, ORDERS_NEW), (watched.events, ORDERS_EXCHANGE), (watched.letters, ORDERS_DEAD))
        for feed, topic in feeds:
            feed.extend(evidence.records(topic, partition, 0, cut.ends[topic][partition]))
        if cut.tables is not None:
            watched.tables.watch(cut.tables.next_offsets.get(partition, 0), watched.folds)
        watched.books.add([answer for answer in cut.books if watched.is_home_of(answer.symbol_id)])
        watched.advance(cut.required[partition])
        watched.expect_no_more(cut.ends[ORDERS_NEW][partition])
        watched.books.expect_none()
        watched.count_looked()
        reached = watched.reached(cut.ends[ORDERS_NEW][partition])
    finally:
        watched.close()
    ledger.flush()
    return PartitionResult(partition, watched.findings, watched.tables.rows or {}, told, reached)


def audit_evidence(
    evidence: Evidence,
    *,
    brokers: list[str] | None = None,
    folder: Path | None = None,
    journal: Path | None = None,
    replays: bool = True,
    producer_keys: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Findings, float]:
    """Audit ``evidence``, which other processes find at ``brokers`` or in ``folder``; return the seconds, too."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="forkast-audit-") as scratch:
        found_at = None if brokers is None else for_other_processes(brokers)
        plan = Plan(evidence.cut, Path(scratch), found_at, folder, journal, replays, read_keys(producer_keys))
        findings = audit(plan, evidence, progress)
    return findings, time.perf_counter() - started
