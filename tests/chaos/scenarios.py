"""The rows of the fault matrix as injections; their names and limits are those of the matrix."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from redis.asyncio import Redis

from tests.chaos import replicas, state_damage
from tests.chaos.cluster import BROKERS
from tests.chaos.load import KAFKA_SYMBOLS, send
from tests.chaos.scenario import Chaos, Scenario
from tests.chaos.streams import StreamClient, connect_without_reading
from tests.chaos.traders import HttpLoad, call, client
from tests.support.flows import order_command

_UNANSWERED = frozenset({201, 503, 0})
_REFUSED = frozenset({201, 503})
_STREAM_CLIENTS = 20


async def _kill_one_engine(chaos: Chaos) -> None:
    for _ in chaos.rounds(5):
        since = time.monotonic()
        chaos.chance.choice(chaos.exchange.engines).kill()
        await chaos.recovers(since)


async def _kill_both_engines(chaos: Chaos) -> None:
    for _ in chaos.rounds(3):
        since = time.monotonic()
        for engine in chaos.exchange.engines:
            engine.kill()
        await chaos.recovers(since)


async def _kill_sink(chaos: Chaos) -> None:
    for _ in chaos.rounds(5):
        await asyncio.sleep(chaos.chance.random())
        since = time.monotonic()
        chaos.exchange.member("sink").kill()
        await chaos.recovers(since)


@asynccontextmanager
async def _stream_clients(chaos: Chaos) -> AsyncIterator[list[StreamClient]]:
    clients = [StreamClient(chaos.exchange, KAFKA_SYMBOLS[n % 5]) for n in range(_STREAM_CLIENTS)]
    for each in clients:
        each.start()
    try:
        yield clients
        await chaos.kafka.stop()
        for each in clients:
            chaos.violations += each.violations[:1]
            if (difference := await each.differs()) is not None:
                chaos.violations.append(difference)
    finally:
        for each in clients:
            await each.stop()


async def _kill_keeper(chaos: Chaos) -> None:
    async with _stream_clients(chaos):
        for _ in chaos.rounds(5):
            since = time.monotonic()
            chaos.exchange.member("keeper").kill()
            await chaos.recovers(since)


async def _kill_oms(chaos: Chaos) -> None:
    for _ in chaos.rounds(5):
        since = time.monotonic()
        chaos.exchange.member("oms").kill()
        await chaos.recovers(since)


async def _stop_each(chaos: Chaos) -> None:
    for member in list(chaos.exchange.members.values()):
        status, seconds = await member.stop()
        chaos.note("stop", seconds)
        if status != 0:
            chaos.violations.append(f"{member.name} ended with status {status} on SIGTERM")
        await member.start()
        await chaos.recovers()


async def _restart_broker(chaos: Chaos) -> None:
    for _ in chaos.rounds(3):
        await chaos.exchange.stop_server("kafka")
        await asyncio.sleep(chaos.seconds(5))
        await chaos.exchange.start_server("kafka")
        await chaos.recovers()


async def _kill_broker(chaos: Chaos) -> None:
    for _ in chaos.rounds(3):
        await chaos.exchange.signal_server("kafka", signal.SIGKILL)
        await chaos.exchange.start_server("kafka")
        await chaos.recovers()


async def _crash_postgres(chaos: Chaos) -> None:
    for _ in chaos.rounds(3):
        # What `pg_ctl stop -m immediate` sends.
        await chaos.exchange.signal_server("postgres", signal.SIGQUIT)
        await chaos.exchange.start_server("postgres")
        await chaos.recovers()


async def _postgres_outage(chaos: Chaos) -> None:
    await chaos.exchange.stop_server("postgres")
    outage = asyncio.create_task(asyncio.sleep(chaos.seconds(30)))
    chaos.note("matching during the outage", await chaos.recovery.matching(time.monotonic()))
    await outage
    await chaos.exchange.start_server("postgres")
    await chaos.recovers()


async def _flush_redis(chaos: Chaos) -> None:
    async with _stream_clients(chaos), Redis.from_url(chaos.exchange.env["REDIS_URL"]) as redis:
        for _ in chaos.rounds(10):
            since = time.monotonic()
            await redis.flushall()
            await chaos.recovers(since)


async def _redis_outage(chaos: Chaos) -> None:
    await chaos.exchange.signal_server("redis", signal.SIGKILL)
    outage = asyncio.create_task(asyncio.sleep(chaos.seconds(30)))
    chaos.note("matching during the outage", await chaos.recovery.matching(time.monotonic()))
    await outage
    await chaos.exchange.start_server("redis")
    await chaos.recovers()


async def _rebalance_storm(chaos: Chaos) -> None:
    third = chaos.exchange.add("engine", "3")
    for round_number in chaos.rounds(6):
        since = time.monotonic()
        change: asyncio.Task[object] | None = None
        if round_number % 3 == 0:
            change = asyncio.create_task(third.start())
        elif round_number % 3 == 1:
            chaos.chance.choice(chaos.exchange.engines).kill()
        else:
            change = asyncio.create_task(third.stop())
        await chaos.recovers(since)
        if change is not None:
            await change
        await asyncio.sleep(max(0.0, since + chaos.seconds(15) - time.monotonic()))
    await third.stop()
    await chaos.recovers()


async def _zombie(chaos: Chaos) -> None:
    for _ in chaos.rounds(3):
        engine = chaos.chance.choice(chaos.exchange.engines)
        since = time.monotonic()
        engine.signal(signal.SIGSTOP)
        try:
            await chaos.recovers(since)
            await asyncio.sleep(max(0.0, since + 30 - time.monotonic()))
        finally:
            engine.signal(signal.SIGCONT)
        await chaos.recovers()


async def _freeze_servers(chaos: Chaos) -> None:
    for name in ("kafka", "postgres", "redis"):
        await chaos.exchange.signal_server(name, signal.SIGSTOP, family=True)
        try:
            await asyncio.sleep(chaos.seconds(20))
        finally:
            await chaos.exchange.signal_server(name, signal.SIGCONT, family=True)
        await chaos.recovers()


async def _lose_state(chaos: Chaos) -> None:
    for _ in chaos.rounds(3):
        for engine in chaos.exchange.engines:
            await engine.crash()
            engine.lose_disk()
        keeper = chaos.exchange.member("keeper")
        await keeper.crash()
        keeper.lose_disk()
        started = asyncio.gather(*(member.start() for member in [*chaos.exchange.engines, keeper]))
        await chaos.recovers()
        await started


async def _damage_state(chaos: Chaos) -> None:
    backups = chaos.exchange.folder / "backups"
    engine = chaos.exchange.member("engine")
    await engine.crash()
    state_damage.back_up(engine.folder, backups)
    await engine.start()
    for damage in list(state_damage.DAMAGES)[: len(chaos.rounds(len(state_damage.DAMAGES)))]:
        await chaos.recovers()
        await engine.crash()
        damaged = await asyncio.to_thread(state_damage.DAMAGES[damage], engine.folder, backups)
        if not damaged:
            chaos.violations.append(f"nothing was there for the damage '{damage}'")
        started = asyncio.create_task(engine.start())
        await chaos.recovers()
        await started


async def _repeat_submits(chaos: Chaos) -> None:
    orders = [
        (symbol_id, json.dumps(order_command(symbol_id, id=str(uuid.uuid4()), userId=3)).encode())
        for symbol_id in KAFKA_SYMBOLS
        for _ in range(len(chaos.rounds(10)))
    ]
    await send(chaos.exchange, orders + orders)
    await send(chaos.exchange, orders)
    await chaos.recovers()
    async with client("jack") as session:
        body = {"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 1, "price": 1}
        body["clientOrderId"] = f"once-{uuid.uuid4().hex[:20]}"
        url = f"{chaos.exchange.member('oms').url}/orders"
        answers = await asyncio.gather(*(call(session, "POST", url, body) for _ in range(50)))
        ids = {answer.get("orderId") for status, answer in answers if status == 201}
        if len(ids) != 1 or {status for status, _ in answers} != {201}:
            statuses = sorted({status for status, _ in answers})
            chaos.violations.append(
                f"I-19: 50 times the same clientOrderId made {len(ids)} orders, statuses {statuses}"
            )
        status, _ = await call(session, "POST", url, body | {"quantity": 2})
        if status != 409:
            chaos.violations.append(
                f"I-19: the same clientOrderId with another body was answered with {status}, not 409"
            )


_POISON = (
    b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"a":' * 2_000, b'{"symbolId":1e999}', b'{"symbolId":"500"}',
    b"x" * 300_000, b'{"symbolId":500,"command":"NOPE"}', b'{"symbolId":999999999}', b'{"symbolId":500,"quantity":NaN}',
    b'{"symbolId":500,"id":"x","userId":1,"type":"LIMIT","side":"BUY","quantity":1,"price":1}',
    b'{"symbolId":500,"orderId":"x","userId":1,"command":"CANCEL"}', b'{"symbolId":-1}',
    b'{"symbolId":500,"symbol":"","tickSize":"0","lotSize":"-1","status":"?","command":"SYMBOL"}',
)  # fmt: skip


async def _poison(chaos: Chaos) -> None:
    for _ in range(20 if chaos.quick else 200):
        chaos.kafka.extra += [(chaos.chance.choice(KAFKA_SYMBOLS), value) for value in chaos.chance.sample(_POISON, 5)]
        await asyncio.sleep(0.1)
    await chaos.recovers()
    for member in chaos.exchange.members.values():
        if any("ended with" in sentence for sentence in member.ends):
            chaos.violations.append(f"{member.name} was ended by a record: {member.ends}")


async def _slow_consumers(chaos: Chaos) -> None:
    keeper = chaos.exchange.member("keeper")
    async with _stream_clients(chaos):
        await asyncio.sleep(1)
        before = keeper.memory()
        slow = [connect_without_reading(keeper.url, KAFKA_SYMBOLS[n % 5]) for n in range(_STREAM_CLIENTS)]
        try:
            await asyncio.sleep(chaos.seconds(30))
            chaos.note("keeper memory, MiB", (keeper.memory() - before) / 2**20)
            await chaos.recovers()
        finally:
            for connection in slow:
                connection.close()


async def _overload(chaos: Chaos) -> None:
    flood = HttpLoad(chaos.exchange, 99, users=200, pause_s=0.0)
    usual, chaos.kafka.rate = chaos.kafka.rate, 20_000.0
    flood.start()
    try:
        await asyncio.sleep(chaos.seconds(60))
    finally:
        await flood.stop()
        chaos.kafka.rate = usual
    if refused := dict(flood.journal.unexpected({201, 429, 503})):
        chaos.violations.append(f"under overload requests were answered with {refused}")
    chaos.note("orders taken under overload", len(flood.journal.acknowledged()))
    chaos.http.journal.requests += flood.journal.requests
    await chaos.recovers()


def _limits(**limits: float) -> dict[str, float]:
    return limits


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("F-1", "kill -9 of an engine", _kill_one_engine, _limits(matching=20)),
        Scenario("F-2", "kill -9 of both engines", _kill_both_engines, _limits(matching=30)),
        Scenario("F-3", "kill -9 of the sink", _kill_sink, _limits(persisted=30, matching=5)),
        Scenario("F-4", "kill -9 of the keeper, 20 stream clients", _kill_keeper, _limits(book=10, matching=5)),
        Scenario("F-5", "kill -9 of the OMS", _kill_oms, _limits(orders=5), statuses=frozenset({201, 0})),
        Scenario(
            "F-6", "SIGTERM of each worker", _stop_each, _limits(stop=10, matching=20),
            statuses=_UNANSWERED, no_repeats=True,
        ),
        Scenario(
            "F-7", "broker stopped and started", _restart_broker,
            _limits(matching=30, orders=30, persisted=30, book=30), statuses=_REFUSED,
        ),
        Scenario(
            "F-8", "kill -9 of the broker", _kill_broker,
            _limits(matching=60, orders=60, persisted=60, book=60), statuses=_REFUSED,
        ),
        Scenario(
            "F-9", "Postgres stopped at once and started", _crash_postgres,
            _limits(persisted=15, matching=5), statuses=_REFUSED,
        ),
        Scenario(
            "F-10", "Postgres away for 30 s", _postgres_outage,
            _limits(persisted=60) | {"matching during the outage": 5}, statuses=_REFUSED,
        ),
        Scenario("F-11", "Redis flushed", _flush_redis, _limits(book=5, matching=5, orders=5)),
        Scenario(
            "F-12", "Redis killed and away for 30 s", _redis_outage,
            _limits(book=10, orders=5) | {"matching during the outage": 5}, failures=0.01,
        ),
        Scenario("F-13", "a third engine comes, one is killed, it goes", _rebalance_storm, _limits(matching=20)),
        Scenario("F-14", "an engine frozen for 30 s, then awake", _zombie, _limits(matching=20)),
        Scenario(
            "F-15", "broker, Postgres, Redis frozen for 20 s each", _freeze_servers,
            _limits(matching=30, orders=30, persisted=30, book=30), statuses=_REFUSED,
        ),
        Scenario("F-18", "local state of engines and keeper lost", _lose_state, _limits(matching=20, book=20)),
        Scenario("F-19", "local state cut, flipped, older, from the future", _damage_state, _limits(matching=20)),
        Scenario("F-20", "the same orders again", _repeat_submits, _limits(matching=5)),
        Scenario("F-21", "poison among the records", _poison, _limits(matching=5, persisted=5)),
        Scenario(
            "F-23", "20 stream clients that do not read", _slow_consumers,
            _limits(book=5, matching=5) | {"keeper memory, MiB": 64},
        ),
        Scenario(
            "F-25", "overload", _overload, _limits(matching=15, orders=15, persisted=15, book=15),
            statuses=frozenset({201, 429, 503}),
        ),
        Scenario(
            "F-29", "kill -9 of each of three brokers", partial(replicas.kill_each, lose_disks=False),
            _limits(matching=30, orders=30, persisted=30, book=30), statuses=_REFUSED, brokers=len(BROKERS),
        ),
        Scenario(
            "F-30", "each of three brokers loses its disk", partial(replicas.kill_each, lose_disks=True),
            _limits(matching=30, orders=30, persisted=30, book=30), statuses=_REFUSED, brokers=len(BROKERS),
        ),
        Scenario(
            "F-31", "each of three brokers frozen for 20 s", replicas.freeze_each,
            _limits(matching=30, orders=30, persisted=30, book=30), statuses=_REFUSED, brokers=len(BROKERS),
        ),
    )
}  # fmt: skip
