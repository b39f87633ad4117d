"""``forkast audit`` as a process beside a real exchange: clean while it runs, red when somebody touches a row."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkast_streams.audit.findings import INVARIANTS
from forkast_streams.devstack import Stack
from forkast_streams.devstack.ports import free_ports
from forkast_streams.producer import EventProducer
from forkast_streams.storage.postgres import Postgres, prepare_database
from forkast_streams.topics import ORDERS_NEW, ensure_topics
from tests.integration.exchange import PARTITIONS, Worker, produce, wait_until
from tests.unit.flows import home_of, mixed_flow, order_command

SYMBOLS = range(1, 9)


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """Servers of this module's own, because an audit judges whole topics."""
    folder = Path(tempfile.mkdtemp(prefix="forkast-test-"))
    stack = Stack(folder, "auto")
    try:
        stack.start()
        env = stack.env()
        asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
        asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=True))
        yield env
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


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


def load(env: dict[str, str], *, seed: int, commands: int = 4_000) -> None:
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


def test_a_running_exchange_is_clean_and_so_is_its_dump(
    env: dict[str, str], workers: dict[str, Worker], tmp_path: Path
) -> None:
    """Audited under load, killed in between, dumped and audited again from the dump."""
    load(env, seed=1)
    loading = threading.Thread(target=lambda: [load(env, seed=seed) for seed in range(100, 1_000, 100)])
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


@pytest.mark.parametrize(
    ("damage", "repair"),
    [
        ("""UPDATE "Order" SET "filledQuantity" = "filledQuantity" / 2 WHERE ctid = (
             SELECT ctid FROM "Order" WHERE status = 'FILLED' LIMIT 1)""",
         """UPDATE "Order" SET "filledQuantity" = quantity WHERE status = 'FILLED'"""),
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
    env: dict[str, str], workers: dict[str, Worker], tmp_path: Path, damage: str, repair: str
) -> None:
    """The exit status is 1 and the row is shown; repaired, all is well again."""
    if not execute(env, 'SELECT 1 FROM "Trade" WHERE "symbolId" = 3 LIMIT 1'):
        load(env, seed=1)
        wait_until(lambda: bool(execute(env, 'SELECT 1 FROM "Trade" WHERE "symbolId" = 3 LIMIT 1')), "a trade")
    execute(env, damage)
    result, report = audit(env, workers["keeper"], tmp_path)
    execute(env, repair)
    assert result.returncode == 1, result.stdout + result.stderr
    assert {name for name, found in report["invariants"].items() if found["violations"]} == {"I-11"}
    assert report["invariants"]["I-11"]["violations"] == 1
    assert report["invariants"]["I-11"]["first"]["message"] in result.stdout
    result, _ = audit(env, workers["keeper"], tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_following_it_turns_red(env: dict[str, str], workers: dict[str, Worker], tmp_path: Path) -> None:
    """Green beside an exchange under load; after a row was touched /ready and the metric are red within 60 s."""
    load(env, seed=2_000)
    port = free_ports(1)[0]
    log = tmp_path / "follow.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_line(workers["keeper"], "--follow", "--port", str(port)),
            env=os.environ | env, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: get(port, "/ready")[0] == 200, f"the audit getting ready ({log.read_text()})")
        passes = metric(port, "forkast_audit_passes_total")
        load(env, seed=3_000)
        wait_until(lambda: metric(port, "forkast_audit_passes_total") > passes + 2, "some passes")
        assert get(port, "/ready")[0] == 200, get(port, "/ready")
        records = metric(port, "forkast_audit_records_total")
        assert records > 4_000
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
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


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
