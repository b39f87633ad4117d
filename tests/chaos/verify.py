"""After a scenario: is the log right, do the tables equal it, is every acknowledged order there?"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from forkast_streams.engine_partition import STRAY_HEADER, EnginePartition
from forkast_streams.naive_book import NaiveExchange, read_command
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW
from tests.chaos.exchange import Exchange
from tests.chaos.load import Journal
from tests.integration.exchange import PARTITIONS, end_offsets, read_topic
from tests.integration.history import replayed, stored

_AUDIT_S_MAX = 300.0


@dataclass(slots=True)
class Verdict:
    """What was looked at and what is wrong.

    Attributes:
        commands: records of ``orders.new``.
        events: records of ``orders.exchange``, with repeats.
        repeats: events that came more than once, byte for byte the same.
        dead: dead letters, with repeats.
        violations: a sentence each; empty when everything holds.
    """

    commands: int = 0
    events: int = 0
    repeats: int = 0
    dead: int = 0
    violations: list[str] = field(default_factory=list)


async def drained(exchange: Exchange) -> bool:
    """Whether every command has its last event or its dead letter, and the sink has every event."""
    env = exchange.env
    inputs, events, dead = await asyncio.gather(
        *(read_topic(env, topic) for topic in (ORDERS_NEW, ORDERS_EXCHANGE, ORDERS_DEAD))
    )
    for partition, records in inputs.items():
        if records and _reached(events[partition], dead[partition], records) < records[-1].offset:
            return False
    ends = await end_offsets(env, ORDERS_EXCHANGE)
    async with Postgres(env["DATABASE_URL"], connections=1) as postgres:
        rows = await postgres.fetch('SELECT partition, "nextOffset" FROM "SinkProgress"')
    progress = {int(row[0]): int(row[1]) for row in rows}
    return all(progress.get(partition, 0) >= end for partition, end in ends.items())


def _reached(events: list[Any], dead: list[Any], inputs: list[Any]) -> int:
    reached = [int(dict(dead[-1].headers)["offset"])] if dead else []
    if events:
        source = json.loads(events[-1].value)["source"]
        reached += [source["offset"]] if source["index"] == source["count"] - 1 else []
    # A forwarded stray that came before has no answer of its own.
    at = max(reached, default=-1)
    while at + 1 < len(inputs) and STRAY_HEADER in dict(inputs[at + 1].headers or ()):
        at += 1
    return at


async def verify(exchange: Exchange, journal: Journal) -> Verdict:
    """Check the log against a naive and a clean replay, the tables against the log, the journal against the input."""
    env = exchange.env
    inputs, events, dead = await asyncio.gather(
        *(read_topic(env, topic) for topic in (ORDERS_NEW, ORDERS_EXCHANGE, ORDERS_DEAD))
    )
    commands, produced, letters = (sum(map(len, topic.values())) for topic in (inputs, events, dead))
    verdict = Verdict(commands, produced, dead=letters)
    for partition, records in inputs.items():
        unique = _check_repeats(partition, events[partition], verdict)
        _check_replays(partition, records, unique, dead[partition], verdict)
    _check_journal(inputs, journal, verdict)
    await _check_tables(env, events, verdict)
    await _audit(env, verdict)
    return verdict


def _check_repeats(partition: int, events: list[Any], verdict: Verdict) -> list[Any]:
    """Each (symbol, sequence) once; what comes again must be the same bytes."""
    seen: dict[tuple[int, int], Any] = {}
    for record in events:
        event = json.loads(record.value)
        first = seen.setdefault((event["symbolId"], event["sequence"]), record)
        if (first.key, first.value, first.timestamp) != (record.key, record.value, record.timestamp):
            verdict.violations.append(f"I-4: partition {partition} offset {record.offset} repeats with other bytes")
    verdict.repeats += len(events) - len(seen)
    return list(seen.values())


def _check_replays(partition: int, inputs: list[Any], events: list[Any], dead: list[Any], verdict: Verdict) -> None:
    outputs = EnginePartition(partition, PARTITIONS).process(inputs)
    expected = [(event.key, event.value, event.timestamp) for event in outputs.events]
    found = [(event.key, event.value, event.timestamp) for event in events]
    if found != expected:
        at = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
        verdict.violations.append(
            f"I-14: partition {partition} has {len(found)} events, a clean replay gives {len(expected)}; "
            f"first difference at {at}: {found[at] if at is not None else None}"
        )
    letters = {int(dict(letter.headers)["offset"]) for letter in dead}
    refused = {int(dict(letter.headers)["offset"]) for letter in outputs.dead}
    if letters != refused:
        verdict.violations.append(
            f"I-2: partition {partition} has dead letters {letters ^ refused} too many or too few"
        )
    _check_naive(partition, inputs, events, refused | set(_strays(inputs)), verdict)


def _strays(inputs: list[Any]) -> list[int]:
    return [record.offset for record in inputs if STRAY_HEADER in dict(record.headers or ())]


def _check_naive(partition: int, inputs: list[Any], events: list[Any], skipped: set[int], verdict: Verdict) -> None:
    """Compare with the matcher that shares no code with the engine."""
    if any(offset in skipped for offset in _strays(inputs)):
        return
    naive, clock = NaiveExchange(), 0
    answers: dict[int, list[tuple[str, Any]]] = {}
    for record in events:
        event = json.loads(record.value)
        data = {name: value for name, value in event["data"].items() if name != "message"}
        answers.setdefault(event["source"]["offset"], []).append((event["type"], data))
    for record in inputs:
        clock = max(clock, record.timestamp)
        if record.offset in skipped:
            continue
        expected = [(kind, data) for kind, data in naive.process(read_command(record.value), clock)]
        if answers.get(record.offset, []) != expected:
            verdict.violations.append(
                f"I-5: {ORDERS_NEW}-{partition} offset {record.offset}: the log has "
                f"{answers.get(record.offset)}, the naive replay {expected}"
            )
            return


def _check_journal(inputs: dict[int, list[Any]], journal: Journal, verdict: Verdict) -> None:
    ids = set()
    for records in inputs.values():
        for record in records:
            if record.value and b'"id"' in record.value:
                try:
                    ids.add(json.loads(record.value).get("id"))
                except ValueError:
                    continue
    missing = [order_id for order_id in journal.acknowledged() if order_id not in ids]
    if missing:
        verdict.violations.append(
            f"I-1: {len(missing)} orders were answered with 201 and are not in the log: {missing[0]}"
        )


async def _check_tables(env: dict[str, str], events: dict[int, list[Any]], verdict: Verdict) -> None:
    values = [record.value for partition in sorted(events) for record in events[partition]]
    async with Postgres(env["DATABASE_URL"], connections=1) as postgres:
        tables = await stored(postgres)
    for name, has, should in zip(("orders", "trades", "sequences"), tables, replayed(values), strict=True):
        differing = [key for key in has.keys() | should.keys() if has.get(key) != should.get(key)]  # type: ignore[attr-defined]
        if differing:
            key = differing[0]
            verdict.violations.append(
                f"I-11: {len(differing)} {name} differ from the log; {key}: the table has {has.get(key)}, "  # type: ignore[attr-defined]
                f"the log says {should.get(key)}"  # type: ignore[attr-defined]
            )


async def _audit(env: dict[str, str], verdict: Verdict) -> None:
    """Run ``forkast audit`` where this version has it."""
    command = [sys.executable, "-m", "forkast_streams", "audit"]
    probe = await asyncio.create_subprocess_exec(
        *command, "--help", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await probe.wait() != 0:
        return
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(_AUDIT_S_MAX):
        output, _ = await process.communicate()
    if process.returncode != 0:
        verdict.violations.append(f"forkast audit ended with {process.returncode}: {output.decode()[-2000:]}")
