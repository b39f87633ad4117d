"""How many orders the OMS takes over HTTP, beside a view that only produces."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import uvloop

from benchmarks.harness import Goal, Run, benchmark
from benchmarks.http_load import Client, post
from benchmarks.results import Plot
from benchmarks.servers import Servers, cpu_seconds, servers, worker
from forkast_streams.devstack.ports import free_ports, is_free
from tests.integration.exchange import wait_until

# Many short rounds: a machine's speed changes within seconds, and what is compared should meet the same speed.
_ROUNDS = 9
_ORDERS = 20_000
_BATCHES = 800
_BATCH = 100
_CONNECTIONS = 64
_UNIT, _CPU = "orders/s", "µs/order"
# Nobody is to be held up: what is measured is what the OMS can do, not what it lets through.
UNLIMITED = {"FORKAST_RATE_USER": "0", "FORKAST_RATE_ADDRESS": "0"}
_OMS, _NAMED, _MANY = "POST /orders", "POST /orders with clientOrderId", "POST /orders/batch"
_BARE, _PLAIN = "bare view", "plain handler"


def order_body(chance: random.Random, *, named: bool = False) -> dict[str, object]:
    """An order as a client writes it; ``named`` gives it a client order id."""
    body: dict[str, object] = {
        "symbolId": chance.randint(1, 5),
        "type": "LIMIT",
        "side": chance.choice(("BUY", "SELL")),
        "quantity": chance.randint(1, 100),
        "price": round(100 + chance.gauss(0, 0.5), 2),
    }
    if named:
        body["clientOrderId"] = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    return body


def _batch_body(chance: random.Random) -> bytes:
    return json.dumps({"orders": [order_body(chance) for _ in range(_BATCH)]}).encode()


@benchmark(
    "http",
    "How many orders a second does one OMS process take over HTTP?",
    [
        Goal(f"{_OMS}: speed", ">=", 5_000),
        Goal("POST /orders / bare view", ">=", 0.6),
        Goal(f"{_MANY}: speed", ">=", 30_000),
    ],
)
def http(run: Run) -> None:
    """The OMS and the servers that only produce by turns, each with 64 connections that are never idle."""
    chance = random.Random(1)
    with servers(run) as started:
        at = replace(started, env=started.env | UNLIMITED)
        with worker(at, "oms") as oms, _only_producing(at, "faust") as bare, _only_producing(at, "plain") as plain:
            oms.start().wait_ready()
            count, batches = run.scaled(_ORDERS), run.scaled(_BATCHES)
            for _ in run.rounds(_ROUNDS):
                orders = [json.dumps(order_body(chance)).encode() for _ in range(count)]
                _measure(run, _OMS, oms.port, oms.pid, "/orders", orders, _taken)
                _measure(run, _BARE, *bare, "/orders", orders, _taken)
                _measure(run, _PLAIN, *plain, "/orders", orders, _taken)
                many = [_batch_body(chance) for _ in range(batches)]
                _measure(run, _MANY, oms.port, oms.pid, "/orders/batch", many, _taken_of_batch)
                named = [json.dumps(order_body(chance, named=True)).encode() for _ in range(count // 6)]
                _measure(run, _NAMED, oms.port, oms.pid, "/orders", named, _taken)
    run.ratio("POST /orders / bare view", f"{_OMS}: speed", f"{_BARE}: speed")
    names = [_OMS, _NAMED, _BARE, _PLAIN, _MANY]
    speeds = {"speed": [run.median(f"{name}: speed") for name in names]}
    run.plot(Plot("speed", "Orders a second of one process", "bars", names, speeds, "", _UNIT))
    run.note(
        f"{_CONNECTIONS} connections with keep-alive and HTTP Basic; each sends its next request when it has an "
        f"answer. A batch has {_BATCH} orders. Rate limits are off; every order is validated, acknowledged by the log "
        "and readable when it is answered."
    )
    run.note(
        "The bare view is a View of a Faust worker, the plain handler one of aiohttp without Faust. Both put the body "
        "into orders.new as it came and answer after the idempotent producer's acknowledgement: they read nothing of "
        "it, know no users and remember nothing. The ratio is to the bare view; until 2026-11-24 the plain handler had "
        "that name."
    )
    run.note("The clients, Kafka, Postgres and Redis share the machine's cores with the process that is measured.")
    run.note("A client order id costs a row in Postgres before the order goes into the log.")


def _taken(status: int, _: bytes) -> int:
    assert status == 201, f"an order was answered with {status}"
    return 1


def _taken_of_batch(status: int, body: bytes) -> int:
    taken = body.count(b'"orderId"')
    assert status == 200, f"a batch was answered with {status}"
    assert taken == _BATCH, f"of a batch {taken} orders were taken: {body[:300]!r}"
    return taken


def _measure(
    run: Run, name: str, port: int, pid: int, path: str, bodies: list[bytes], taken_of: Callable[[int, bytes], int]
) -> None:
    requests = [post(path, body, number) for number, body in enumerate(bodies)]
    taken = 0

    def answered(status: int, body: bytes) -> None:
        nonlocal taken
        taken += taken_of(status, body)
        done(taken)

    async def measure() -> float:
        async with Client(port, _CONNECTIONS) as client:
            return await client.send_all(requests, answered)

    with run.step(name) as done:
        before = cpu_seconds(pid)
        seconds = uvloop.run(measure())
        cpu = cpu_seconds(pid) - before
    run.record(f"{name}: speed", taken / seconds, _UNIT)
    run.record(f"{name}: CPU", cpu / taken * 1e6, _CPU)


@contextmanager
def _only_producing(at: Servers, kind: str) -> Iterator[tuple[int, int]]:
    """The port and the process of a server that only produces."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.bare_view", kind, str(port), str(at.folder / f"bare-{kind}")]
    with (at.folder / f"bare-{kind}.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | at.env, stdout=log, stderr=log)
    try:
        wait_until(lambda: not is_free(port), f"the {kind} view listening")
        wait_until(lambda: _is_producing(port), f"the {kind} view producing")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _is_producing(port: int) -> bool:
    """Whether an order is taken; Faust's web server listens before the rest of its worker has started."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/orders", json.dumps(order_body(random.Random(2))).encode()
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 201)
    except OSError:
        return False
