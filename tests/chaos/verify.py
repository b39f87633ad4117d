"""After a scenario: has everything drained, is it what an uninterrupted engine makes, and does the audit agree?"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forkast_streams.audit.capture import ENGINE_GROUP
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.start_checks import DEMO_EMAILS
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW
from tests.chaos.exchange import Exchange
from tests.chaos.journal import Journal
from tests.chaos.traders import EXPIRES_MS_MAX
from tests.integration.exchange import PARTITIONS, committed_offsets, end_offsets, read_topic

_AUDIT_S_MAX = 600.0
# What was placed to expire has expired after a pause of this length.
_QUIET_S = EXPIRES_MS_MAX / 1_000 + 1.0
_POLL_S = 0.25
_HOLDS = 0


@dataclass(slots=True)
class Verdict:
    """What was looked at and what is wrong.

    Attributes:
        commands: records of ``orders.new``.
        events: records of ``orders.exchange``, with repeats.
        repeats: events that came more than once, byte for byte the same.
        dead: dead letters, with repeats.
        commands_by_kind: the commands that have an outcome which is no dead letter.
        events_by_type: the events without repeats.
        audit: the report of ``forkast audit``.
        violations: a sentence each; empty when everything holds.
    """

    commands: int = 0
    events: int = 0
    repeats: int = 0
    dead: int = 0
    commands_by_kind: Counter[str] = field(default_factory=Counter)
    events_by_type: Counter[str] = field(default_factory=Counter)
    audit: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


async def wait_until_drained(exchange: Exchange) -> None:
    """Return when engine and sink have answered everything and nothing more has come for a while."""
    loop = asyncio.get_running_loop()
    quiet_since, ends_then = loop.time(), None
    while True:
        ends = await _ends_when_answered(exchange.env)
        if ends is None or ends != ends_then:
            quiet_since, ends_then = loop.time(), ends
        elif loop.time() - quiet_since >= _QUIET_S:
            return
        await asyncio.sleep(_POLL_S)


async def _ends_when_answered(env: dict[str, str]) -> list[dict[int, int]] | None:
    """The ends of inputs and events; None while engine or sink are behind them."""
    inputs, events = await asyncio.gather(*(end_offsets(env, topic) for topic in (ORDERS_NEW, ORDERS_EXCHANGE)))
    async with Postgres(env["DATABASE_URL"], connections=1) as postgres:
        rows = await postgres.fetch('SELECT partition, "nextOffset" FROM "SinkProgress"')
    persisted = {int(row[0]): int(row[1]) for row in rows}
    answered = await committed_offsets(env, ENGINE_GROUP, ORDERS_NEW)
    behind = any(answered.get(partition, 0) < end for partition, end in inputs.items())
    behind |= any(persisted.get(partition, 0) < end for partition, end in events.items())
    return None if behind else [inputs, events]


async def verify(exchange: Exchange, journal: Journal | None) -> Verdict:
    """Hold the log against that of an engine that was never interrupted, then let ``forkast audit`` judge it all.

    Without a journal of what clients were told there is no audit: the next one judges the whole log anyway.
    """
    env = exchange.env
    inputs, events, dead = await asyncio.gather(
        *(read_topic(env, topic) for topic in (ORDERS_NEW, ORDERS_EXCHANGE, ORDERS_DEAD))
    )
    commands, produced, letters = (sum(map(len, topic.values())) for topic in (inputs, events, dead))
    verdict = Verdict(commands, produced, dead=letters)
    for partition, records in inputs.items():
        refused = {int(dict(letter.headers)["offset"]) for letter in dead[partition]}
        verdict.commands_by_kind.update(
            json.loads(record.value).get("command", "NEW") for record in records if record.offset not in refused
        )
        unique = _without_repeats(events[partition], verdict)
        await asyncio.to_thread(_check_replay, partition, records, unique, refused, verdict)
    if journal is not None:
        await _audit(exchange, journal, verdict)
    return verdict


def _without_repeats(events: list[Any], verdict: Verdict) -> list[Any]:
    """The first of each (symbol, sequence); whether what comes again is the same is the audit's to say."""
    seen: dict[tuple[int, int], Any] = {}
    for record in events:
        event = json.loads(record.value)
        if seen.setdefault((event["symbolId"], event["sequence"]), record) is record:
            verdict.events_by_type[event["type"]] += 1
    verdict.repeats += len(events) - len(seen)
    return list(seen.values())


def _check_replay(
    partition: int, inputs: list[Any], events: list[Any], refused: set[int], verdict: Verdict
) -> None:  # fmt: skip
    """The engine that was killed, moved and restored must have made what one that ran through makes, to the byte."""
    outputs = EnginePartition(partition, PARTITIONS).process(inputs)
    expected = [(event.key, event.value, event.timestamp) for event in outputs.events]
    found = [(event.key, event.value, event.timestamp) for event in events]
    if found != expected:
        at = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
        verdict.violations.append(
            f"I-14: partition {partition} has {len(found)} events, a clean replay gives {len(expected)}; "
            f"first difference at {at}: {found[at] if at is not None else None}"
        )
    differing = refused ^ {int(dict(letter.headers)["offset"]) for letter in outputs.dead}
    if differing:
        verdict.violations.append(f"I-14: partition {partition} has dead letters {differing} too many or too few")


async def _audit(exchange: Exchange, journal: Journal, verdict: Verdict) -> None:
    """Run ``forkast audit`` on the log, the tables, the book API and what clients were told."""
    with tempfile.TemporaryDirectory(prefix="forkast-chaos-audit-") as name:
        folder = Path(name)
        journal.write(folder / "journal.jsonl")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "forkast_streams", "audit", "--keeper-url", exchange.member("keeper").url,
            "--user", DEMO_EMAILS[0], "--settle", "60", "--journal", str(folder / "journal.jsonl"),
            "--json", str(folder / "report.json"),
            env=os.environ | exchange.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_AUDIT_S_MAX):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            verdict.violations.append(f"forkast audit did not end within {_AUDIT_S_MAX:g} s")
            return
        if (folder / "report.json").exists():
            verdict.audit = json.loads((folder / "report.json").read_text())
    if process.returncode != _HOLDS:
        verdict.violations.append(f"forkast audit ended with {process.returncode}: {output.decode()[-2000:]}")
        return
    # Exit status 0 of an audit that saw nothing would say nothing.
    unseen = [name for name in _ALWAYS_SEEN if not verdict.audit["invariants"][name]["lookedAt"]]
    if unseen:
        verdict.violations.append(f"forkast audit had nothing to look at for {', '.join(unseen)}")


_ALWAYS_SEEN = (
    "I-1", "I-2", "I-3", "I-5", "I-6", "I-7", "I-8", "I-9", "I-10", "I-11", "I-12", "I-15", "I-17", "I-18", "I-19",
    "I-20",
)  # fmt: skip
