"""A whole exchange that wants signatures: who is heard, who is not, and that a crash changes nothing of it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkast_streams.audit.capture import Exchange as AuditedExchange
from forkast_streams.audit.follow import Follower
from forkast_streams.config import Settings
from forkast_streams.devstack import Stack
from forkast_streams.producer import EventProducer
from forkast_streams.producer_keys import read_key_file
from forkast_streams.reference_data import publish_symbols, read_symbols, set_status
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.topics import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics, partition_for
from tests.integration.exchange import PARTITIONS, Worker, read_topic, wait_until

# The least that the command takes; the engines here look at the same file every second.
LEAD_S = "3"
HOME = partition_for(1, PARTITIONS)


@dataclass
class Exchange:
    """An engine and an OMS on servers of their own: a log that was judged by keys is never without them again."""

    env: dict[str, str]
    file: Path
    keys: dict[str, str]
    engine: Worker
    oms: Worker

    def signing_as(self, name: str) -> dict[str, str]:
        """The environment of a process with this key."""
        return self.env | {"FORKAST_PRODUCER_KEY": self.keys[name]}


def forkast_keys(*arguments: str) -> str:
    """Run the command; return what it prints."""
    command = [sys.executable, "-m", "forkast_streams", "keys", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def wait_for_log_time(timestamp: int) -> None:
    """Return when the log's time, which here is this machine's, has passed ``timestamp``."""
    wait_until(lambda: time.time() * 1_000 > timestamp + 100, "the time from which it holds")


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    folder = Path(tempfile.mkdtemp(prefix="forkast-test-"))
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    options = {
        "ops": ["--symbols"],
        "oms": [],
        "engine": [],
        "partner": ["--users", "1"],
        "leaked": [],
    }
    keys = {}
    for name, more in options.items():
        printed = forkast_keys("new", "--file", str(file), "--producer", name, "--in", LEAD_S, *more)
        keys[name] = printed.removeprefix("FORKAST_PRODUCER_KEY=")
    forkast_keys("require", "on", "--file", str(file), "--in", LEAD_S)
    stack = Stack(folder, "auto")
    workers: list[Worker] = []
    try:
        stack.start()
        env = stack.env()
        asyncio.run(ensure_topics([env["KAFKA_BROKERS"]]))
        asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=True))
        wait_for_log_time(read_key_file(file).content.required[0].since)
        asyncio.run(publish_symbols(Settings.from_env(env | {"FORKAST_PRODUCER_KEY": keys["ops"]})))
        engine_env = env | {"FORKAST_PRODUCER_KEYS": str(file), "FORKAST_PRODUCER_KEY": keys["engine"]}
        workers.append(Worker("engine", engine_env, folder / "engine"))
        workers.append(Worker("oms", env | {"FORKAST_PRODUCER_KEY": keys["oms"]}, folder / "oms"))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_ready()
        yield Exchange(env, file, keys, *workers)
    finally:
        for worker in workers:
            worker.end()
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def order(**changes: Any) -> dict[str, Any]:
    """An order that rests."""
    fields = {"id": str(uuid.uuid4()), "userId": 1, "symbolId": 1, "type": "LIMIT", "side": "BUY"}
    return fields | {"quantity": 1, "price": 10} | changes


def write(env: dict[str, str], command: dict[str, Any], *, partition: int = HOME) -> None:
    """Append a command as the process with ``env`` would."""

    async def send() -> None:
        async with EventProducer(Settings.from_env(env).broker_list) as producer:
            await producer.send(ORDERS_NEW, key=b"1", value=json.dumps(command).encode(), partition=partition)

    asyncio.run(send())


def records(exchange: Exchange, topic: str) -> list[Any]:
    """All records of a topic."""
    by_partition = asyncio.run(read_topic(exchange.env, topic))
    return [record for partition in sorted(by_partition) for record in by_partition[partition]]


def wait_for(exchange: Exchange, topic: str, matches: Callable[[Any], bool]) -> Any:
    """The record that ``matches``, once there is one."""
    found: list[Any] = []

    def look() -> bool:
        exchange.engine.check()
        found[:] = [record for record in records(exchange, topic) if matches(record)]
        return bool(found)

    wait_until(look, f"the record in {topic}")
    return found[0]


def is_order(order_id: str) -> Callable[[Any], bool]:
    """Whether an event says that an order was accepted."""

    def matches(record: Any) -> bool:
        event = json.loads(record.value)
        return bool(event["type"] == "ORDER" and event["data"]["id"] == order_id)

    return matches


def is_refused(order_id: str, reason: str) -> Callable[[Any], bool]:
    """Whether a dead letter is about this order, for this reason."""
    return lambda record: order_id.encode() in record.value and dict(record.headers)["reason"] == reason.encode()


def place_over_http(exchange: Exchange) -> str:
    """Place an order with the OMS."""
    body = json.dumps({"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 1, "price": 10}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{exchange.oms.port}/orders", data=body, method="POST")
    token = base64.b64encode(b"alice@example.com:alice@example.com").decode()
    request.add_header("Authorization", f"Basic {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=15) as response:
        return str(json.loads(response.read())["orderId"])


def test_who_may_not_define_symbols_is_told_that_no_halt_came_about(exchange: Exchange) -> None:
    """At once, from the dead letter; the market trades on, and the table says so."""
    for name, reason in ((None, "UNSIGNED"), ("oms", "USER_NOT_ALLOWED")):
        env = exchange.env if name is None else exchange.signing_as(name)
        published = asyncio.run(set_status(Settings.from_env(env), "AAPL", "HALTED"))
        assert published is not None
        assert (published.dead or "").startswith(f"{reason}, ")
    published = asyncio.run(set_status(Settings.from_env(exchange.signing_as("ops")), "AAPL", "TRADING"))
    assert published is not None
    assert published.status == "TRADING"
    [symbol, *_] = asyncio.run(read_symbols(Settings.from_env(exchange.env)))
    assert (symbol["symbol"], symbol["status"]) == ("AAPL", "TRADING")


def test_those_with_a_key_are_heard(exchange: Exchange) -> None:
    """The OMS for any user, a partner for its own; a stray is found and signed on by the engine that found it."""
    wait_for(exchange, ORDERS_EXCHANGE, is_order(place_over_http(exchange)))
    own, stray = order(), order()
    write(exchange.signing_as("partner"), own)
    wait_for(exchange, ORDERS_EXCHANGE, is_order(own["id"]))
    write(exchange.signing_as("partner"), stray, partition=(HOME + 1) % PARTITIONS)
    assert wait_for(exchange, ORDERS_EXCHANGE, is_order(stray["id"])).partition == HOME


def test_expiry_goes_on(exchange: Exchange) -> None:
    """The engine signs its own heartbeats, or nothing would expire while nobody trades."""
    brief = order(timeInForce="GTD", expiresAt=int(time.time() * 1_000) + 1_500)
    write(exchange.signing_as("oms"), brief)
    expired = wait_for(
        exchange, ORDERS_EXCHANGE, lambda record: b"EXPIRED" in record.value and brief["id"].encode() in record.value
    )
    assert json.loads(expired.value)["data"]["reason"] == "EXPIRED"


def test_all_others_are_not(exchange: Exchange) -> None:
    unsigned, foreign = order(), order(userId=2)
    write(exchange.env, unsigned)
    write(exchange.signing_as("partner"), foreign)
    wait_for(exchange, ORDERS_DEAD, is_refused(unsigned["id"], "UNSIGNED"))
    wait_for(exchange, ORDERS_DEAD, is_refused(foreign["id"], "USER_NOT_ALLOWED"))
    accepted = {json.loads(record.value)["data"].get("id") for record in records(exchange, ORDERS_EXCHANGE)}
    assert not accepted & {unsigned["id"], foreign["id"]}


def test_a_key_is_revoked_while_the_engine_runs(exchange: Exchange) -> None:
    before, after = order(), order()
    write(exchange.signing_as("leaked"), before)
    wait_for(exchange, ORDERS_EXCHANGE, is_order(before["id"]))
    key_id = exchange.keys["leaked"].partition(":")[0]
    forkast_keys("revoke", key_id, "--file", str(exchange.file), "--in", LEAD_S)
    [ends] = [key.valid_until for key in read_key_file(exchange.file).content.keys if key.id == key_id]
    assert ends is not None
    wait_for_log_time(ends)
    write(exchange.signing_as("leaked"), after)
    wait_for(exchange, ORDERS_DEAD, is_refused(after["id"], "BAD_SIGNATURE"))
    assert exchange.engine.is_ready()


def test_a_crash_changes_no_verdict(exchange: Exchange) -> None:
    """What the engine repeats after a crash without its disk is what it said before."""
    last = order()
    write(exchange.signing_as("oms"), last)
    wait_for(exchange, ORDERS_EXCHANGE, is_order(last["id"]))
    before = {(r.partition, r.value) for topic in (ORDERS_EXCHANGE, ORDERS_DEAD) for r in records(exchange, topic)}
    exchange.engine.kill()
    exchange.engine.lose_disk()
    exchange.engine.start().wait_ready()
    following = order()
    write(exchange.signing_as("oms"), following)
    wait_for(exchange, ORDERS_EXCHANGE, is_order(following["id"]))
    after = {(r.partition, r.value) for topic in (ORDERS_EXCHANGE, ORDERS_DEAD) for r in records(exchange, topic)}
    new = after - before
    assert all(following["id"].encode() in value for _, value in new)
    assert len(new) == 1


def audit(exchange: Exchange, **env: str) -> subprocess.CompletedProcess[str]:
    """Audit the log with these settings more."""
    command = [sys.executable, "-m", "forkast_streams", "audit", "--no-tables"]
    environment = os.environ | exchange.env | env
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_an_audit_judges_by_the_same_keys(exchange: Exchange) -> None:
    """With them all holds, refusals, strays and a key that was revoked; without them it says what it needs."""
    refused, foreign, taken = order(), order(userId=2), order()
    write(exchange.env, refused)
    write(exchange.signing_as("partner"), foreign)
    write(exchange.signing_as("oms"), taken)
    wait_for(exchange, ORDERS_EXCHANGE, is_order(taken["id"]))
    judged = audit(exchange, FORKAST_PRODUCER_KEYS=str(exchange.file), FORKAST_PRODUCER_KEY=exchange.keys["oms"])
    assert judged.returncode == 0, judged.stdout + judged.stderr
    blind = audit(exchange)
    assert blind.returncode == 2, blind.stdout + blind.stderr
    assert "set FORKAST_PRODUCER_KEYS" in blind.stderr
    assert "Traceback" not in judged.stderr + blind.stderr


def test_an_audit_that_follows_judges_by_them_too(exchange: Exchange, tmp_path: Path) -> None:
    """A file that cannot be read stops it until it can be; then it goes on as if nothing had been."""
    file = tmp_path / "keys.json"
    follower = Follower(AuditedExchange(Settings.from_env(exchange.env).broker_list, None, None, producer_keys=file))
    try:
        follower.run_pass()
        assert "the audit cannot run: the producers' keys" in str(follower.why_not_ready)
        for _ in range(2):
            file.write_bytes(exchange.file.read_bytes())
            follower.run_pass()
            assert follower.why_not_ready is None
            late = order()
            write(exchange.env, late)
            wait_for(exchange, ORDERS_DEAD, is_refused(late["id"], "UNSIGNED"))
        assert follower.findings.looked["I-2"] > 0
    finally:
        follower.close()


def test_an_audit_finds_what_other_keys_would_have_judged_differently(exchange: Exchange, tmp_path: Path) -> None:
    """As after an engine that took what it should have refused: a key that ended before it signed."""
    content = read_key_file(exchange.file).content
    ended = [
        msgspec.structs.replace(key, valid_until=key.valid_from) if key.producer == "oms" else key
        for key in content.keys
    ]
    file = tmp_path / "other.json"
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(content, keys=tuple(ended))))
    judged = audit(exchange, FORKAST_PRODUCER_KEYS=str(file))
    assert judged.returncode == 1, judged.stdout + judged.stderr
    assert "I-2" in judged.stdout


def test_an_engine_without_the_keys_does_not_go_on(exchange: Exchange, tmp_path: Path) -> None:
    """It would take what was refused, and all that follows would be different."""
    assert exchange.engine.terminate() == 0
    forgetful = Worker("engine", exchange.env, tmp_path / "engine")
    try:
        forgetful.start()
        assert forgetful._process is not None
        assert forgetful._process.wait(timeout=60) != 0
    finally:
        forgetful.end()
    assert "FORKAST_PRODUCER_KEYS" in forgetful.log.read_text()
