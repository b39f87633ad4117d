"""``forkast audit`` as a process beside a real exchange: clean while it runs, red when somebody touches a row."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkast_streams.audit.dump import DumpEvidence
from forkast_streams.audit.findings import INVARIANTS
from forkast_streams.audit.records import Record
from forkast_streams.audit.run import audit_evidence
from forkast_streams.audit.tables import TablesSnapshot
from forkast_streams.devstack.ports import free_ports
from forkast_streams.errors import SetupError
from forkast_streams.producer import EventProducer
from forkast_streams.storage.postgres import Postgres, prepare_database
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics
from tests.integration.exchange import PARTITIONS, Worker, fresh_stack, produce, read_topic, wait_until
from tests.support.flows import home_of, mixed_flow, order_command

SYMBOLS = range(1, 9)


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """Servers of this module's own, because an audit judges whole topics."""
    with fresh_stack() as stack:
        env = stack.env()
        asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
        asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=True))
        yield env


@pytest.fixture(scope="module")
def workers(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """An engine, a sink and a keeper, ready."""
    folder = tmp_path_factory.mktemp("audit")
    running = {role: Worker(role, env, folder / role) for role in ("engine", "sink", "keeper")}
    for worker in running.values():
        worker.start()
    try:
        for worker in running.values():
            worker.wait_ready()
        yield running
    finally:
        for worker in running.values():
            worker.end()


def load(env: dict[str, str], *, seed: int, commands: int = 2_000) -> None:
    """Send a mixed flow for eight symbols, records that are no commands, and two on foreign partitions."""
    records = [
        (symbol_id, json.dumps(command).encode())
        for symbol_id in SYMBOLS
        for command in mixed_flow(commands // len(SYMBOLS), seed=seed + symbol_id, symbol_id=symbol_id)
    ]
    for at in range(50, len(records), 500):
        records.insert(at, (1, b"{"))
    asyncio.run(produce(env, ORDERS_NEW, records))

    async def stray() -> None:
        async with EventProducer(env["KAFKA_BROKERS"].split(",")) as producer:
            for number in range(2):
                order = order_command(id=f"00000000-0000-0000-{seed:04x}-{number:012x}", price=80)
                value = json.dumps(order).encode()
                await producer.send(ORDERS_NEW, key=b"1", value=value, partition=(home_of(1) + 1) % PARTITIONS)

    asyncio.run(stray())


def command_line(keeper: Worker, *arguments: str) -> list[str]:
    url = f"http://127.0.0.1:{keeper.port}"
    return [sys.executable, "-m", "forkast_streams", "audit", "--keeper-url", url, *arguments]


def audit(
    env: dict[str, str], keeper: Worker, folder: Path, *arguments: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run an audit to its end; return also its report, empty when there is none."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = command_line(keeper, "--json", str(report), *arguments)
    result = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=120, check=False)
    return result, json.loads(report.read_text()) if report.exists() else {}


def execute(env: dict[str, str], statement: str) -> list[tuple[Any, ...]]:
    """Run a statement on the exchange's database."""

    async def run() -> list[tuple[Any, ...]]:
        async with Postgres(env["DATABASE_URL"]) as postgres:
            return await postgres.fetch(statement)

    return asyncio.run(run())


Events = list[Record]


def _dropped(events: Events, at: int) -> Events:
    return events[:at] + events[at + 1 :]


def _swapped(events: Events, at: int) -> Events:
    return [*events[:at], events[at + 1], events[at], *events[at + 2 :]]


def _edited(events: Events, at: int, **data: Any) -> Events:
    return [*events[:at], _edit(events[at], **data), *events[at + 1 :]]


def _edit(record: Record, **data: Any) -> Record:
    event = json.loads(record.value or b"")
    event["data"] |= data
    return Record(record.offset, record.timestamp, record.key, json.dumps(event, separators=(",", ":")).encode())


DAMAGES: dict[str, tuple[str, dict[str, Any], Callable[[Events, int], Events], str]] = {
    "a trade dropped": ("TRADE", {}, _dropped, "I-3"),
    "a cancel-all dropped": ("CANCEL_ALL", {}, _dropped, "I-3"),
    "a trigger swapped": ("TRIGGER", {}, _swapped, "I-3"),
    "a quantity changed": ("ORDER", {}, lambda events, at: _edited(events, at, quantity="7777"), "I-5"),
    "an amended quantity changed": ("AMEND", {}, lambda events, at: _edited(events, at, quantity="7777"), "I-5"),
    "a shown quantity changed": ("SHOW", {}, lambda events, at: _edited(events, at, quantity="7777"), "I-6"),
    "repeated with a change": ("TRADE", {}, lambda e, at: [*e, _edit(e[at], takerSide="?")], "I-4"),
    "a price altered": ("TRADE", {}, lambda events, at: _edited(events, at, price="99.97"), "I-7"),
    "a trigger's last price altered": ("TRIGGER", {}, lambda e, at: _edited(e, at, lastPrice="99.97"), "I-5"),
    "an order leaked": ("CANCEL", {"reason": "USER"}, lambda events, at: _edited(events, at, userId=77), "I-17"),
    "a shown order leaked": ("SHOW", {}, lambda events, at: _edited(events, at, userId=77), "I-17"),
}


@pytest.fixture(scope="module")
def dump(env: dict[str, str], workers: dict[str, Worker], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dump of a running exchange, small enough to be judged a dozen times."""
    folder = tmp_path_factory.mktemp("dumped")
    load(env, seed=1)
    result, _ = audit(env, workers["keeper"], folder, "--dump", str(folder / "dump"))
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "dump"


def _partition_with(dump: Path, evidence: DumpEvidence, kind: str, data: dict[str, Any]) -> tuple[int, Events, int]:
    """A partition with such an event, its events, and the place of the first one that is not the last."""
    for partition, end in evidence.cut.ends[ORDERS_EXCHANGE].items():
        events = list(evidence.records(ORDERS_EXCHANGE, partition, 0, end))
        for at, record in enumerate(events[:-1]):
            event = json.loads(record.value or b"")
            if event["type"] == kind and event["data"].items() >= data.items():
                return partition, events, at
    raise AssertionError(f"{dump} has no {kind} with {data}")


@pytest.mark.parametrize(("kind", "data", "damage", "invariant"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_log_is_found(
    dump: Path, kind: str, data: dict[str, Any], damage: Callable[[Events, int], Events], invariant: str
) -> None:
    """The log of a real exchange with one event damaged breaks the invariant; as it was it breaks none."""
    evidence = DumpEvidence(dump)
    partition, events, at = _partition_with(dump, evidence, kind, data)
    name = f"{ORDERS_EXCHANGE}-{partition}.jsonl.gz"
    whole, cut = (dump / name).read_bytes(), (dump / "cut.json").read_bytes()
    damaged = [Record(n, r.timestamp, r.key, r.value, r.headers) for n, r in enumerate(damage(events, at))]
    try:
        with gzip.open(dump / name, "wb") as file:
            file.writelines(msgspec.json.encode(record) + b"\n" for record in damaged)
        evidence.cut.ends[ORDERS_EXCHANGE][partition] = len(damaged)
        (dump / "cut.json").write_bytes(msgspec.json.encode(evidence.cut))
        findings, _ = audit_evidence(DumpEvidence(dump), folder=dump)
    finally:
        (dump / name).write_bytes(whole)
        (dump / "cut.json").write_bytes(cut)
    assert findings.violations[invariant], findings.violations
    first = findings.first[invariant]
    assert first.record is None or first.record["where"].startswith(f"{ORDERS_EXCHANGE}-{partition}")


@pytest.mark.parametrize(
    ("damage", "repair"),
    [
        ("""UPDATE "Order" SET "filledQuantity" = "filledQuantity" / 2 WHERE ctid = (
             SELECT ctid FROM "Order" WHERE status = 'FILLED' AND quantity IS NOT NULL LIMIT 1)""",
         """UPDATE "Order" SET "filledQuantity" = quantity WHERE status = 'FILLED' AND quantity IS NOT NULL"""),
        ("""UPDATE "Trade" SET "takerSide" = CASE "takerSide" WHEN 'BUY' THEN 'SELL' ELSE 'BUY' END::"OrderSide"
             WHERE "symbolId" = 3 AND sequence = (SELECT max(sequence) FROM "Trade" WHERE "symbolId" = 3)""",
         """UPDATE "Trade" SET "takerSide" = CASE "takerSide" WHEN 'BUY' THEN 'SELL' ELSE 'BUY' END::"OrderSide"
             WHERE "symbolId" = 3 AND sequence = (SELECT max(sequence) FROM "Trade" WHERE "symbolId" = 3)"""),
        ("""UPDATE "SymbolSequence" SET sequence = sequence - 1 WHERE "symbolId" = 2""",
         """UPDATE "SymbolSequence" SET sequence = sequence + 1 WHERE "symbolId" = 2"""),
        ("""INSERT INTO "Trade" VALUES (gen_random_uuid(), 4, 1, 1, gen_random_uuid(), gen_random_uuid(), now(), NULL,
             -7, 'BUY')""",
         """DELETE FROM "Trade" WHERE sequence = -7"""),
    ],
    ids=["order", "trade", "sequence", "extra trade"],
)  # fmt: skip
def test_a_touched_row_is_found(
    env: dict[str, str], workers: dict[str, Worker], dump: Path, tmp_path: Path, damage: str, repair: str
) -> None:
    """The exit status is 1 and the row is shown; repaired, the next damage is the only one again."""
    assert dump.exists(), "the tables have what was dumped"
    execute(env, damage)
    result, report = audit(env, workers["keeper"], tmp_path)
    execute(env, repair)
    assert result.returncode == 1, result.stdout + result.stderr
    assert {name for name, found in report["invariants"].items() if found["violations"]} == {"I-11"}
    assert report["invariants"]["I-11"]["violations"] == 1
    assert report["invariants"]["I-11"]["first"]["message"] in result.stdout


def test_a_running_exchange_is_clean_and_so_is_its_dump(
    env: dict[str, str], workers: dict[str, Worker], tmp_path: Path
) -> None:
    """Audited under load, killed in between, dumped and audited again from the dump."""
    loading = threading.Thread(target=lambda: [load(env, seed=seed) for seed in range(100, 400, 100)])
    loading.start()
    try:
        busy, report = audit(env, workers["keeper"], tmp_path)
        assert busy.returncode == 0, busy.stdout + busy.stderr
        for role in ("engine", "sink"):
            workers[role].kill()
            workers[role].start()
    finally:
        loading.join()
    for worker in workers.values():
        worker.wait_ready()
    result, report = audit(env, workers["keeper"], tmp_path, "--dump", str(tmp_path / "dump"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "holds" in result.stdout
    assert "Traceback" not in result.stderr
    assert "destroyed" not in result.stderr
    looked = {name for name, found in report["invariants"].items() if found["lookedAt"]}
    assert looked >= INVARIANTS.keys() - {"I-1", "I-4"}
    result, again = audit(env, workers["keeper"], tmp_path, "--from", str(tmp_path / "dump"))
    assert result.returncode == 0, result.stdout + result.stderr
    for name in INVARIANTS:
        assert again["invariants"][name]["lookedAt"] == report["invariants"][name]["lookedAt"], name


def test_a_query_that_postgres_ends_is_one_sentence(env: dict[str, str]) -> None:
    """As when it is restarted under an audit that follows, which then asks again."""
    snapshot = TablesSnapshot(env["DATABASE_URL"])
    execute(env, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forkast-audit'")
    for read in (lambda: snapshot.cut({}), lambda: list(snapshot.rows("Order"))):
        with pytest.raises(SetupError, match="Postgres cannot be read"):
            read()
    snapshot.close()


@contextmanager
def following(env: dict[str, str], keeper: Worker, folder: Path) -> Iterator[int]:
    """The port of an audit that follows and has found nothing so far; it must end well when it is told to."""
    port, log = free_ports(1)[0], folder / "follow.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_line(keeper, "--follow", "--port", str(port)), env=os.environ | env, stdout=output, stderr=output
        )
    try:
        try:
            wait_until(lambda: get(port, "/ready")[0] == 200, "the audit getting ready", within_s=120)
        except TimeoutError as exc:
            raise AssertionError(f"{get(port, '/ready')} {log.read_text()}") from exc
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_following_it_turns_red(env: dict[str, str], workers: dict[str, Worker], tmp_path: Path) -> None:
    """Green beside an exchange under load; after a row was touched /ready and the metric are red within 60 s."""
    load(env, seed=2_000)
    with following(env, workers["keeper"], tmp_path) as port:
        passes = metric(port, "forkast_audit_passes_total")
        load(env, seed=3_000)
        wait_until(lambda: metric(port, "forkast_audit_passes_total") > passes + 1, "some passes")
        assert get(port, "/ready")[0] == 200, get(port, "/ready")
        assert metric(port, "forkast_audit_records_total") > 4_000
        assert metric(port, "forkast_audit_ok") == 1
        touched = "SELECT ctid FROM \"Order\" WHERE status = 'CANCELLED' LIMIT 1"
        execute(env, f'UPDATE "Order" SET "userId" = "userId" + 1000 WHERE ctid = ({touched})')
        try:
            wait_until(lambda: get(port, "/ready")[0] == 503, "the audit turning red", within_s=60)
        finally:
            execute(env, 'UPDATE "Order" SET "userId" = "userId" - 1000 WHERE "userId" > 1000')
        assert "I-11" in get(port, "/ready")[1]
        assert metric(port, "forkast_audit_ok") == 0
        assert metric(port, 'forkast_audit_violations_total{invariant="I-11"}') == 1
        assert metric(port, 'forkast_audit_violations_total{invariant="I-5"}') == 0


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body; status 0 when nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()
    except OSError:
        return 0, ""


def metric(port: int, name: str) -> float:
    """The value of a metric."""
    [value] = [line.split()[-1] for line in get(port, "/metrics")[1].splitlines() if line.startswith(f"{name} ")]
    return float(value)


def test_without_servers_it_cannot_run(workers: dict[str, Worker], tmp_path: Path) -> None:
    """The exit status is 2, and a sentence says what to do."""
    result, report = audit({"KAFKA_BROKERS": "127.0.0.1:1"}, workers["keeper"], tmp_path)
    assert (result.returncode, report) == (2, {})
    assert "KAFKA_BROKERS" in result.stderr


def test_following_it_sees_an_event_that_nobody_made(
    env: dict[str, str], workers: dict[str, Worker], tmp_path: Path
) -> None:
    """A repeat of a trade at another price, written into the log itself: red within 60 s, and for every audit after.

    Last of all, because a log cannot be repaired.
    """
    load(env, seed=4_000)
    events = asyncio.run(read_topic(env, ORDERS_EXCHANGE))
    partition, trade = next(
        (partition, record)
        for partition, records in events.items()
        for record in records
        if json.loads(record.value)["type"] == "TRADE"
    )

    async def forge() -> None:
        async with EventProducer(env["KAFKA_BROKERS"].split(",")) as producer:
            value = _edit(Record(0, trade.timestamp, trade.key, trade.value), price="1.00").value
            await producer.send(ORDERS_EXCHANGE, key=trade.key, value=value, partition=partition)

    with following(env, workers["keeper"], tmp_path) as port:
        asyncio.run(forge())
        wait_until(lambda: get(port, "/ready")[0] == 503, "the audit turning red", within_s=60)
        assert "I-4" in get(port, "/ready")[1]
        assert metric(port, "forkast_audit_ok") == 0
        assert metric(port, 'forkast_audit_violations_total{invariant="I-4"}') >= 1
    result, report = audit(env, workers["keeper"], tmp_path, "--no-tables", "--settle", "0")
    assert result.returncode == 1, result.stdout + result.stderr
    assert report["invariants"]["I-4"]["violations"] == 1
    assert '"price":"1.00"' in report["invariants"]["I-4"]["first"]["record"]["value"]
